"""Ready-made tools: plain one-file modules that need nothing of lmagent but `function` and `ToolError`.

`calculator` and `clock` hold tools that are ready to use. `files`, `web` and `shell` hold only factories, because a
tool that touches files, the network or processes must be told its bounds first; each names them in `FACTORIES`.
"""
