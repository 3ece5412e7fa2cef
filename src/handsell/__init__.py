"""handsell: out of millions of items, which ten for this user, now?"""

__version__ = "0.1.0"
