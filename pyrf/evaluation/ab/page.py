"""The page on which raters judge, and what it talks to. It never learns which method a clip is of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, Field, ValidationError

from pyrf.evaluation.ab.study import CHECK_TEXT, Trial
from pyrf.evaluation.ab.votes import Votes

STATIC = Path(__file__).parent / "static"
KINDS = {"ab.css": "text/css", "ab.js": "text/javascript"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "media-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
MAX_BODY = 4096
"""Bytes of an answer."""
UNKNOWN = "this invitation is not known; ask for a new one"


class Answers(BaseModel):
    """What the page sends: a trial's number, a choice per question, and how long it took."""

    trial: Annotated[int, Field(ge=0)]
    answers: dict[str, str]
    seconds: float


def make_app(votes: Votes) -> FastAPI:
    """The application; `/r/TOKEN` is a rater's page."""
    app = FastAPI(openapi_url=None)

    @app.middleware("http")
    async def headers(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        response.headers.update(HEADERS)
        for name in ("etag", "last-modified"):  # they would tell the methods' files apart
            del response.headers[name]
        return response

    @app.get("/r/{token}")
    def page(token: str) -> Response:
        if votes.rater(token) is None:
            return Response(UNKNOWN, 404, media_type="text/plain")
        return FileResponse(STATIC / "index.html", media_type="text/html")

    @app.get("/static/{name}")
    def static(name: str) -> Response:
        if name not in KINDS:
            return Response("there is no such file", 404, media_type="text/plain")
        return FileResponse(STATIC / name, media_type=KINDS[name])

    @app.get("/r/{token}/trial")
    def trial(token: str, number: int | None = None) -> Response:
        rater = votes.rater(token)
        if rater is None:
            return _refused(404, UNKNOWN)
        plan, done = votes.study.plan(rater), votes.done(rater)
        number = done if number is None else number
        if not 0 <= number <= done:
            return _refused(409, "trials are answered in order")
        if number >= len(plan):
            return JSONResponse({"number": number, "of": len(plan), "questions": []})
        told = {"number": number, "of": len(plan), "questions": _questions(votes, plan[number])}
        return JSONResponse(told)

    @app.get("/r/{token}/clip/{number}/{side}")
    def clip(token: str, number: int, side: str) -> Response:
        rater = votes.rater(token)
        plan = [] if rater is None else votes.study.plan(rater)
        if not 0 <= number < len(plan) or side not in ("a", "b"):
            return _refused(404, "there is no such clip")
        path = votes.study.path(plan[number], side)
        if not path.is_file():
            return _refused(404, "this clip is gone; tell who invited you")
        return FileResponse(path, media_type="video/mp4")

    @app.post("/r/{token}/votes")
    async def vote(token: str, request: Request) -> Response:
        rater = votes.rater(token)
        if rater is None:
            return _refused(404, UNKNOWN)
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MAX_BODY:
                return _refused(413, f"an answer has {MAX_BODY} bytes at most")
        try:
            given = Answers.model_validate_json(body)
        except ValidationError as error:
            return _refused(422, f"no answer: {error.errors()[0]['msg']}")
        plan = votes.study.plan(rater)
        if given.trial > votes.done(rater) or given.trial >= len(plan):
            return _refused(409, "trials are answered in order")
        try:
            votes.keep(rater, given.trial, plan[given.trial], given.answers, given.seconds)
        except ValueError as error:
            return _refused(422, str(error))
        return JSONResponse({"done": votes.done(rater)})

    return app


def _questions(votes: Votes, trial: Trial) -> list[dict[str, str]]:
    questions = votes.study.questions
    if trial.check:
        text = CHECK_TEXT.format(side=trial.check.upper())
        questions = dict.fromkeys(questions, text)
    return [{"name": name, "text": text} for name, text in questions.items()]


def _refused(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": message}, status)
