"""Ready-made tools: plain one-file modules that import nothing from lmagent but `function` and `ToolError`.

`calculator` and `clock` contain tools that are ready to use. `files`, `web` and `shell` contain only factories, because
a tool that accesses files, the network or processes needs explicit limits; each module lists them in `FACTORIES`.
"""
