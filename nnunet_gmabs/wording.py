"""Words for people, which several commands and pages use."""


def count(amount: int, one: str, many: str | None = None) -> str:
    """An amount with its noun.

    >>> count(1, "plane"), count(2, "plane")
    ('1 plane', '2 planes')
    """
    return f"{amount:,} {one if amount == 1 else many or one + 's'}"
