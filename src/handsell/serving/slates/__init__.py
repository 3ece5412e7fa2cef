"""Requests for slates: their arms, how the slate is made, the answer and the impression."""
