"""Show errors to visitors of the page, without folders of the server."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import TypeVar

import gradio as gr

from esrgan.console import log
from esrgan.demo.uploads import hide_folder
from esrgan.errors import EsrganError, LostDeviceError

UNEXPECTED = "something unexpected happened; the log of the demo has the cause"
ResultT = TypeVar("ResultT")


class VisitorErrors:
    """The latest error of each visitor, by the key of the visitor's session, until it is shown."""

    def __init__(self) -> None:
        self._errors: dict[str | None, str] = {}
        self._lost: str | None = None

    def keep(self, session: str | None, work: Callable[[], ResultT]) -> ResultT:
        """Do some work, keep its error, if any, and raise it; Gradio does not show an ``EsrganError`` by itself."""
        try:
            return self.compute(work)
        except EsrganError as error:
            self._errors[session] = first_line(error)
            raise silent_error(first_line(error)) from error
        except Exception:
            self._errors[session] = UNEXPECTED
            raise

    def compute(self, work: Callable[[], ResultT]) -> ResultT:
        """Do some work that may use the GPU. Once the GPU has failed, raise the error of that without trying again."""
        if self._lost is not None:
            raise LostDeviceError(self._lost)
        try:
            return work()
        except LostDeviceError as error:
            self._lost = str(error.with_remedy("stop the demo, and start it again"))
            log.error("%s", self._lost)
            raise LostDeviceError(self._lost) from error

    def pop(self, session: str | None) -> str | None:
        """Return the kept error, and forget it; None if there is none, because the work was stopped."""
        return self._errors.pop(session, None)


def silent_error(text: str) -> gr.Error:
    """Return an error that Gradio passes on to callers of its interface, but does not show on the page."""
    return gr.Error(text, visible=False, print_exception=False)


def first_line(error: EsrganError) -> str:
    """Return the first problem of an error on one line, without the folders of its file."""
    return str(hide_folder(error)).partition("\n")[0]


def show_errors(work: Callable[[], ResultT]) -> ResultT:
    """Do some work, and show its ``EsrganError``, if any, in a message on the page."""
    try:
        return work()
    except EsrganError as error:
        raise gr.Error(html.escape(first_line(error)), duration=20, print_exception=False) from error
