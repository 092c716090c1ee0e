"""What the page does to offer models, and to download more of them."""

from __future__ import annotations

import gradio as gr

from esrgan.demo.layout import Components, choices_of
from esrgan.demo.models import DemoModels, describe_download
from esrgan.demo.summary import paragraphs
from esrgan.demo.upload_events import Updates
from esrgan.demo.visitor_errors import VisitorErrors


class ModelEvents:
    """Handles the events of the list of models.

    Args:
        components: The components of the page.
        models: The models that it offers.
    """

    def __init__(self, components: Components, models: DemoModels) -> None:
        self.components, self.models = components, models
        self.errors = VisitorErrors()

    def refresh(self) -> Updates:
        """Offer the models that are on this machine now, and the others for download."""
        c, more = self.components, self.models.downloadable
        return {
            c.model: gr.Dropdown(choices_of(self.models.labels)),
            c.more: gr.Dropdown(choices_of(more), value=next(iter(more), None)),
            c.fetch: self.choose_download(next(iter(more), None)),
        }

    def choose_download(self, name: str | None) -> gr.Button:
        """Say on the button what will be downloaded."""
        if name is None:
            return gr.Button("All models are on this machine", interactive=False)
        return gr.Button(f"Download {name} ({describe_download(name)})", interactive=True)

    def fetch(self, name: str, request: gr.Request) -> str:
        """Download a public model."""
        return self.errors.keep(request.session_hash, lambda: paragraphs([self.models.download(name)]))

    def show_failure(self, request: gr.Request) -> str:
        """Return why a download failed."""
        text = self.errors.pop(request.session_hash)
        return paragraphs([text] if text else [], is_error=True)
