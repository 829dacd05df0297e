"""The one error that users are meant to read."""


class WorkbookError(Exception):
    """Something the user can mend. The message names the file or value, what was seen, what is wanted and the way out.

    The command line prints it without a traceback; anything else that escapes is a bug and keeps its traceback.
    """
