"""Ready-made tools: one-file modules that import only `function` and `ToolError` from lmagent.

`calculator` and `clock` contain tools that are ready to use. `files`, `web` and `shell` contain only factories, because
a tool that accesses files, the network or processes needs explicit limits; each module lists them in `FACTORIES`.
"""
