"""What a callable asks for, as a JSON Schema: its signature, hints and docstring read once."""
