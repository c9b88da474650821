"""A POSIX system that plays Windows, as far as a program of Python can tell; loaded by every process of the test.

What is played: modules and names of `os`, `signal` and `time` that Windows lacks; `msvcrt.locking`; folders that can't
be opened; files opened by `os.open` without `O_BINARY`, which would be changed; `fsync` of files that are open for
reading only; files that can't be replaced or removed while this process has them open; letters that no file name may
hold. The default encoding comes from the environment (LC_ALL=C: ASCII), as that of Windows isn't UTF-8 either.
What is not: paths with drives and backslashes, `os.name`, another process that has a file open, and Windows itself.
"""

import builtins
import errno
import fcntl
import os
import shutil
import signal
import stat
import sys
import time
import types

OURS = ("mri_transfer",)
LACKS = ("fcntl", "resource", "pwd", "grp", "termios")

# Locks: a byte range that only its owner may touch.
msvcrt = types.ModuleType("msvcrt")
msvcrt.LK_NBLCK, msvcrt.LK_UNLCK = 2, 0


def _locking(descriptor, mode, count):
    at = os.lseek(descriptor, 0, os.SEEK_CUR)
    if at >= 2**31 or mode not in (msvcrt.LK_NBLCK, msvcrt.LK_UNLCK):
        raise OSError(errno.EINVAL, "not a place of 32 bits")
    # Windows locks for a handle, POSIX's ranges for a process: `flock` is for a handle, too.
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB if mode else fcntl.LOCK_UN)
    except BlockingIOError:
        raise PermissionError(errno.EACCES, "Permission denied") from None


msvcrt.locking = _locking

_import = builtins.__import__


def _import_here(name, globals=None, locals=None, fromlist=(), level=0):
    ours = str((globals or {}).get("__name__", "")).startswith(OURS)
    if ours and name in LACKS:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    if ours and name == "msvcrt":
        return msvcrt
    return _import(name, globals, locals, fromlist, level)


builtins.__import__ = _import_here

shutil._use_fd_functions = False
for name in (
    "O_NOFOLLOW",
    "O_DIRECTORY",
    "preadv",
    "pread",
    "posix_fadvise",
    "sched_getaffinity",
    "memfd_create",
):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGHUP", "pthread_sigmask"):
    delattr(signal, name)
if hasattr(time, "CLOCK_BOOTTIME"):
    del time.CLOCK_BOOTTIME

# Files opened by number.
os.O_BINARY = 1 << 29
_open, _fsync, _replace = os.open, os.fsync, os.replace
_remove, _unlink = os.remove, os.unlink


def _caller_is_ours(depth=2):
    return str(sys._getframe(depth).f_globals.get("__name__", "")).startswith(OURS)


def _open_here(path, flags, mode=0o777, *, dir_fd=None):
    if os.path.isdir(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))
    if _caller_is_ours() and not flags & os.O_BINARY and os.fspath(path) not in (os.devnull, "CONOUT$"):
        raise AssertionError(f"{path}: opened without O_BINARY")
    return _open(path, flags & ~os.O_BINARY, mode, dir_fd=dir_fd)


def _fsync_here(descriptor):
    number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
    if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, "Bad file descriptor")
    return _fsync(descriptor)


def _held_open(path):
    """Whether this process has the file open or mapped."""
    try:
        wanted = os.stat(path)
    except OSError:
        return False
    if not stat.S_ISREG(wanted.st_mode):
        return False
    for number in os.listdir("/proc/self/fd"):
        try:
            if os.path.samestat(os.fstat(int(number)), wanted):
                return True
        except OSError:
            continue
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        real = os.path.realpath(path)
        return any(line.rstrip("\n").endswith(f" {real}") for line in maps)


def _refuse_held(path):
    if _held_open(path):
        raise PermissionError(errno.EACCES, "used by this process", os.fspath(path))


def _replace_here(source, target, **options):
    _refuse_held(source)
    _refuse_held(target)
    return _replace(source, target, **options)


def _remove_here(path, **options):
    if sys._getframe(1).f_globals.get("__name__") != "tempfile":  # which does otherwise on Windows
        _refuse_held(path)
    return _remove(path, **options)


os.open, os.fsync, os.replace = _open_here, _fsync_here, _replace_here
os.remove = os.unlink = _remove_here

# Names of files.
FORBIDDEN = set('<>:"|?*\\')


def _watch(event, arguments):
    if event in ("open", "os.mkdir", "os.rename") and isinstance(arguments[0], str):
        for path in arguments[:2] if event == "os.rename" else arguments[:1]:
            name = os.path.basename(str(path))
            writes = event != "open" or any(letter in str(arguments[1]) for letter in "wax+")
            if writes and not str(path).startswith(("/proc", "/dev", "/sys")):
                frame, ours = sys._getframe(1), False
                while frame is not None and not ours:
                    ours = str(frame.f_globals.get("__name__", "")).startswith(OURS)
                    frame = frame.f_back
                if ours and (FORBIDDEN & set(name) or name.endswith((" ", "."))) and name not in (".", ".."):
                    raise AssertionError(f"{path}: no file can be called so on Windows")


sys.addaudithook(_watch)
