"""How the next token is chosen: options, logit filters, choice."""
