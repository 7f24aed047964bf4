"""From the argument text that a model wrote to the result that it reads."""
