"""How each family of formats spells a call: one generator per grammar, tables for what differs only in words."""
