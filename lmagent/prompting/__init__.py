"""Tools through the prompt, for models without function calling: formats, the text scanner, repair. All pure."""
