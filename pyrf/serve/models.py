"""The models of a server, and what each lets its sessions be: prompts, sizes and starts that it can make."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pyrf.endpoints.expand import PromptExpander
from pyrf.protocol import ImageStart, ModelList, ModelSummary
from pyrf.serve.errors import ServeError
from pyrf.serve.sessions.adapters import ServedAdapters
from pyrf.serve.settings import ServeSettings
from pyrf.streaming.lockstep import can_join
from pyrf.streaming.mix import ClipPrompt, as_mix, texts_of
from pyrf.streaming.notices import told_elsewhere
from pyrf.streaming.start import check_start

if TYPE_CHECKING:
    from pyrf.config import StartKind
    from pyrf.pipeline import StreamingPipeline

WARM_UP_CHUNKS = 2
"""Chunks made before the first viewer comes."""


class ServedModel:
    """A loaded model, and what is refused of its sessions whoever asks. Belongs to the event loop.

    Args:
        name: that clients choose it by.
        pipe: what makes its streams.
        settings: limits and policies of the server.

    Attributes:
        adapters: whose strengths its viewers may change, or not.
        expander: writes prompts out for it, if the server has that.
        together: whether several of its sessions are computed in one call.
    """

    def __init__(self, name: str, pipe: StreamingPipeline, settings: ServeSettings) -> None:
        self.name, self.pipe, self._settings = name, pipe, settings
        self.adapters = ServedAdapters(pipe.model.adapters, settings)
        self.together = can_join(pipe.model)
        self.expander: PromptExpander | None = None
        if settings.expand is not None:
            self.expander = PromptExpander(
                settings.expand,
                model=settings.expand_model,
                timeout_s=settings.endpoint_timeout_s,
                vocabulary=pipe.vocabulary,
            )

    def __repr__(self) -> str:
        return f"<ServedModel {self.name}: {self.pipe!r}>"

    @property
    def max_pixels(self) -> int:
        """Of a frame."""
        return self._settings.max_pixels or self.pipe.height * self.pipe.width

    def check_prompt(self, prompt: str | dict[str, float]) -> ClipPrompt:
        """A prompt as streams take it, all of whose texts the model would read whole.

        Raises:
            ServeError: 422.
        """
        chars = sum(map(len, [prompt] if isinstance(prompt, str) else prompt))
        if chars > self._settings.max_prompt_chars:
            message = f"a prompt may have {self._settings.max_prompt_chars} characters, got {chars}"
            raise ServeError(422, "bad_prompt", f"{message}; shorten it")
        try:
            mix = as_mix(prompt)
            for text in texts_of(mix):
                self.pipe.check_prompt(text)
        except ValueError as error:
            raise ServeError(422, "bad_prompt", str(error)) from None
        return mix

    def check_size(self, height: int | None, width: int | None) -> tuple[int, int]:
        """Height and width of frames, the model's own where there are none.

        Raises:
            ServeError: 422.
        """
        try:
            height, width = self.pipe.check_size(height, width)
        except ValueError as error:
            raise ServeError(422, "bad_size", str(error)) from None
        if height * width > self.max_pixels:
            message = f"a frame may have {self.max_pixels} pixels, got {height} x {width}; ask for fewer"
            raise ServeError(422, "bad_size", message)
        return height, width

    def start_of(self, request: ImageStart) -> StartKind | None:
        """How a request's stream starts; None where it does from noise.

        Raises:
            ServeError: 422 when the model cannot start so.
        """
        try:
            return check_start(self.pipe.model, request.start, image=request.image is not None, video=False)
        except ValueError as error:
            raise ServeError(422, "bad_image", str(error)) from None

    def notices(self, prompt: str | dict[str, float], size: tuple[int, int] | None = None) -> list[str]:
        """What a viewer should be told of a prompt that is good, and of a size of frames."""
        height, width = size or (None, None)
        return self.pipe.model.notices(*texts_of(as_mix(prompt)), height=height, width=width)

    def warm_up(self) -> None:
        """Make chunks for nobody: the first of a process is slow, and no viewer should wait for that."""
        with told_elsewhere(), self.pipe.stream("warm up") as stream:
            for _ in range(WARM_UP_CHUNKS):
                next(stream)


class ServedModels:
    """All models of a server; the first one is for whoever names none.

    Args:
        models: with different names, at least one.

    Attributes:
        default: the first.
    """

    def __init__(self, models: Sequence[ServedModel]) -> None:
        self._models = {model.name: model for model in models}
        self.default = models[0]

    def __repr__(self) -> str:
        return f"<ServedModels {', '.join(self._models)}>"

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models.values())

    @property
    def names(self) -> list[str]:
        """The default's first."""
        return list(self._models)

    def find(self, name: str | None) -> ServedModel:
        """The model of this name, the default one for None.

        Raises:
            ServeError: 422 when there is none; the message lists those that there are.
        """
        if name is None:
            return self.default
        if name not in self._models:
            raise ServeError(
                422, "bad_model", f"there is no model {name!r:.80}; there are: {', '.join(self._models)}"
            )
        return self._models[name]

    def summaries(self) -> ModelList:
        """What clients choose from."""
        return ModelList(models=[_summary(model, model is self.default) for model in self])


def _summary(model: ServedModel, default: bool) -> ModelSummary:
    pipe, card = model.pipe, model.pipe.card
    return ModelSummary(
        name=model.name,
        default=default,
        fps=pipe.fps,
        height=pipe.height,
        width=pipe.width,
        sizes=list(card.sizes),
        words=len(card.vocabulary),
        choices=list(card.choices),
        model_limits=list(card.limits),
    )
