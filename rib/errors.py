"""The one kind of error that is the user's to mend: a sentence that says what was expected, what came, what to do."""


class RibError(Exception):
    """Something the user can put right; mains print its message alone, without a traceback."""


class DivergedError(RibError):
    """Training that lost itself in numbers that are none: a setting to avoid, where several are tried."""
