"""Pure decisions: names, options, states, policies. No I/O, no clock of its own, no threads."""
