"""Text, for the shop."""


def shout(text: str) -> str:
    return text.upper()
