"""Show errors to visitors of the page, without folders of the server."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import TypeVar

import gradio as gr

from esrgan.demo.uploads import hide_folder
from esrgan.errors import EsrganError

UNEXPECTED = "something unexpected happened; the log of the demo has the cause"
ResultT = TypeVar("ResultT")


class VisitorErrors:
    """The latest error of each visitor, by the key of the visitor's session, until it is shown."""

    def __init__(self) -> None:
        self._errors: dict[str | None, str] = {}

    def keep(self, session: str | None, work: Callable[[], ResultT]) -> ResultT:
        """Do some work; keep its ``EsrganError``, if any, and raise it for Gradio, which then does not show it."""
        try:
            return work()
        except EsrganError as error:
            raise self.make_error(session, first_line(error)) from error

    def make_error(self, session: str | None, text: str) -> gr.Error:
        """Keep an error, and return it for Gradio, which does not show it."""
        self._errors[session] = text
        return gr.Error(text, visible=False, print_exception=False)

    def pop(self, session: str | None) -> str:
        """Return the kept error, and forget it."""
        return self._errors.pop(session, UNEXPECTED)

    def forget(self, session: str | None) -> None:
        """Forget the error of a visitor who has left."""
        self._errors.pop(session, None)


def first_line(error: EsrganError) -> str:
    """Return the first problem of an error on one line, without the folders of its file."""
    return str(hide_folder(error)).partition("\n")[0]


def show_errors(work: Callable[[], ResultT]) -> ResultT:
    """Do some work, and show its ``EsrganError``, if any, in a message on the page."""
    try:
        return work()
    except EsrganError as error:
        raise gr.Error(html.escape(first_line(error)), duration=20, print_exception=False) from error
