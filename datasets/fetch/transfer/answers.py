"""HTTP requests, and sorting responses into usable, retryable and refused ones."""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import requests
import urllib3

from mri_transfer import __version__
from mri_transfer.datasets.fetch.transfer.addresses import shown
from mri_transfer.datasets.fetch.transfer.part import Remote
from mri_transfer.errors import UserError

_MOST_DIGITS = 18  # of a number of bytes or seconds; Python refuses to parse more than 4,300 digits
_PAGE = re.compile(rb"\s*(<!doctype html|<html)", re.IGNORECASE)


class Refused(UserError):
    """This file is unavailable; others may not be."""


class Unreachable(UserError):
    """The server does not answer for now."""


class Again(Exception):
    """A transient failure; `wait` is the delay in seconds the server requests."""

    def __init__(self, reason: str, wait: float = 0.0):
        super().__init__(reason)
        self.wait = wait


class Client:
    """Connections of several threads, with one session each.

    Args:
        timeout: seconds without data after which a connection counts as dead.

    Attributes:
        auth: for the first host; requests drops it on a redirect to another one.
    """

    def __init__(self, timeout: float):
        self.auth: requests.auth.AuthBase | None = None
        self._timeout = timeout
        self._local = threading.local()

    @contextlib.contextmanager
    def ask(
        self, remote: Remote, headers: dict[str, str], method: str = "GET"
    ) -> Iterator[requests.Response]:
        """A response whose body is unread.

        Raises, also while the body is read:
            Again: transient failures: no connection, a dropped one, silence.
            Refused: permanent ones: an invalid address, an untrusted certificate, endless redirects.
        """
        timeout = self._timeout
        try:
            with self._request(
                method,
                remote.url,
                # Bytes as stored: with a compressed transfer, ranges would refer to other bytes.
                headers={"Accept-Encoding": "identity", **headers},
                stream=True,
                timeout=(min(30.0, timeout), timeout),
                auth=self.auth,
                allow_redirects=True,
            ) as response:
                yield response
        except requests.exceptions.SSLError as error:
            raise Refused(
                f"{remote.url}: its certificate is not trusted ({_cause(error)}); check this machine's clock and "
                "network, or name a --mirror"
            ) from None
        except (
            requests.exceptions.InvalidURL,
            requests.exceptions.MissingSchema,
            urllib3.exceptions.LocationValueError,
        ):
            # The error quotes the fault, which may be a redirect containing a signature.
            raise Refused(
                f"{remote.url}: no address to download from, or it redirects to none; see {remote.home}"
            ) from None
        except requests.exceptions.InvalidSchema:
            raise Refused(f"{remote.url}: only http and https addresses can be downloaded") from None
        except requests.exceptions.TooManyRedirects:
            raise Refused(f"{remote.url}: redirects without end; look at {remote.home}") from None
        except (requests.Timeout, urllib3.exceptions.TimeoutError):
            raise Again(f"no data for {timeout:g} s") from None
        except requests.exceptions.ChunkedEncodingError:
            raise Again("the connection dropped") from None
        except requests.ConnectionError as error:
            raise Again(f"can't be reached ({_cause(error)})") from None
        except requests.RequestException as error:
            raise Refused(f"{remote.url}: can't be requested ({_cause(error)}); see {remote.home}") from None
        except (urllib3.exceptions.HTTPError, http.client.HTTPException):
            raise Again("the connection dropped") from None

    def _request(self, method: str, address: str, **options: Any) -> requests.Response:
        try:
            return self._session().request(method, address, **options)
        except ValueError as error:  # from the standard library, if a redirect is not an address
            if isinstance(error, (requests.RequestException, urllib3.exceptions.HTTPError)):
                raise
            raise requests.exceptions.InvalidURL from None

    def _session(self) -> requests.Session:
        if not hasattr(self._local, "session"):
            session = requests.Session()
            session.headers["User-Agent"] = f"mri-transfer/{__version__}"
            self._local.session = session
        return self._local.session


def check_status(response: requests.Response, remote: Remote) -> None:
    """Check that a response delivers what was requested.

    Raises:
        Again: the server is busy or broken.
        Refused: the server lacks the file, denies it, or sends a web page.
    """
    code = response.status_code
    if code in (200, 206):
        if is_page(response):
            raise page_instead(response, remote)
        return
    answer = f"the server answers {code} {response.reason or ''}".rstrip()
    if code in (408, 425, 429) or code >= 500:
        raise Again(answer, _retry_after(response.headers.get("Retry-After", "")))
    if code in (401, 403, 407, 451):
        raise Refused(
            f"{remote.url}: access refused ({code}); "
            + (remote.denied or f"see {remote.home} for who may download it, or name a --mirror")
        )
    if code in (404, 410):
        raise Refused(
            f"{remote.url}: not found ({code}); it may have moved, see {remote.home}, or name a --mirror"
        )
    raise Refused(f"{remote.url}: {answer}; see {remote.home}")


def length_of(response: requests.Response) -> int | None:
    """The number of bytes a response announces, if any."""
    text = response.headers.get("Content-Length", "").strip()
    return int(text) if text.isdecimal() and len(text) <= _MOST_DIGITS else None


def is_page(response: requests.Response, start: bytes = b"") -> bool:
    """Whether a response is a web page, by its headers or the start of its body."""
    kind = response.headers.get("Content-Type", "").lower()
    return kind.startswith(("text/html", "application/xhtml")) or bool(_PAGE.match(start))


def page_instead(response: requests.Response, remote: Remote) -> Refused:
    """The error to raise for a web page instead of a file."""
    where = f" ({shown(response.url)})" if response.url != remote.url else ""
    return Refused(
        f"{remote.url}: a web page came instead of the file, probably one to log in or to agree to terms{where}; "
        f"open it in a browser, see {remote.home}, or name a --mirror"
    )


def _retry_after(text: str) -> float:
    """Delay in seconds requested by a Retry-After header (RFC 9110, 10.2.3: seconds or a date)."""
    text = text.strip()
    if text.isdecimal():
        return float(text[:_MOST_DIGITS])
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        moment = email.utils.parsedate_to_datetime(text)
        return max(0.0, moment.timestamp() - time.time())
    return 0.0


def _cause(error: BaseException) -> str:
    """The innermost cause of a nested error, in a few words."""
    reason: Any = error
    while True:
        inner = [getattr(reason, "reason", None), *getattr(reason, "args", ())[:1]]
        inner = [cause for cause in inner if isinstance(cause, BaseException)]
        if not inner:
            break
        reason = inner[0]
    text = str(reason).split(": ", 1)[-1]
    return " ".join(text.split())[:120] or type(reason).__name__
