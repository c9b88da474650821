"""The one error that is the user's to mend."""


class UserError(Exception):
    """Bad input: one line that names the file or option and the remedy.

    The command line prints it without a traceback and exits with code 2.
    """
