"""Events: how fast the intake accepts them, and how soon answers change."""
