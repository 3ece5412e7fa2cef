"""Who may call: API keys, their scopes, and signed tokens of widgets."""
