"""One front door a provider: its settings, its environment names, its parameters. Each module loads when named.

A module holds a class and nothing of the wire: that is its codec's, in `lmagent/providers/`.
"""

from __future__ import annotations
