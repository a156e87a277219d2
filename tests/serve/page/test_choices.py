"""What the page offers to choose from: chips, a surprise, the gallery, examples; and links of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("playwright", reason="the page is tested with playwright, from the test extra")

from playwright.sync_api import expect

from tests.support.browser import Visit, find_chromium
from tests.support.running import Running
from tests.support.shapes_page import RED, chip, picked, shows

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no Chromium: apt-get install chromium")


def test_chips_write_the_prompt(port: int, visit: Callable[..., Visit]) -> None:
    """One of a group or none, in the order of the groups; what is written beside them stays."""
    v = visit(port)
    v.await_state("idle")
    assert picked(v) == ["large", "red", "circle", "moves right", "slowly", "on a grey background"]
    v.page.fill("#prompt", "")
    assert picked(v) == []
    for phrase in ("bounces", "circle", "blue"):
        chip(v, phrase).click()
    expect(v.page.locator("#prompt")).to_have_value("blue, circle, bounces")
    chip(v, "green").focus()
    v.page.keyboard.press("Enter")
    expect(v.page.locator("#prompt")).to_have_value("green, circle, bounces")
    chip(v, "circle").click()
    expect(v.page.locator("#prompt")).to_have_value("green, bounces")
    assert picked(v) == ["green", "bounces"]
    v.page.fill("#prompt", "A Green ball that bounces, greenish")
    assert picked(v) == ["green", "bounces"]
    chip(v, "white").click()
    chip(v, "slowly").click()
    expect(v.page.locator("#prompt")).to_have_value("A white ball that bounces, greenish, slowly")
    v.page.fill("#prompt", "a whitewashed ball, slowly")
    assert picked(v) == ["slowly"]
    chip(v, "slowly").click()
    expect(v.page.locator("#prompt")).to_have_value("a whitewashed ball")
    assert v.page.get_attribute("body", "data-state") == "idle"  # nothing started by itself


def test_chips_change_a_stream_at_once(port: int, visit: Callable[..., Visit]) -> None:
    v = visit(port)
    v.start(RED)
    id, top = v.session["id"], v.page.locator("#gallery").bounding_box()
    chip(v, "blue").click()
    v.until("document.getElementById('canvas').dataset.prompt === '1'")
    shows(v, "blue", "circle")
    assert v.session["id"] == id
    assert v.page.locator("#gallery").bounding_box() == top  # nothing on the page has moved
    chip(v, "square").click()
    shows(v, "blue", "square")
    assert v.page.url.endswith("#prompt=a+large+blue+square+moves+right+slowly+on+a+grey+background&seed=0")


def test_a_chip_pressed_before_there_is_a_connection_counts(port: int, visit: Callable[..., Visit]) -> None:
    v = visit(port)
    v.await_state("idle")
    v.page.evaluate(
        """() => {
          document.getElementById("send").click();
          const chips = [...document.querySelectorAll("#choices button")];
          chips.find(({ textContent }) => textContent === "blue").click();
        }"""
    )
    v.until("document.getElementById('canvas').dataset.prompt === '1'")
    shows(v, "blue", "circle")


def test_a_surprise_starts_a_stream_and_changes_it(port: int, visit: Callable[..., Visit]) -> None:
    v = visit(port)
    v.await_state("idle")
    v.page.evaluate("Math.random = () => 0.99")
    v.page.click("#surprise")
    expect(v.page.locator("#prompt")).to_have_value(
        "large, white, triangle, stays still, fast, on a teal background"
    )
    v.await_state("live")
    expect(v.page.locator("#seed-shown")).to_have_text("99000")
    shows(v, "white", "triangle")
    id = v.session["id"]
    v.page.evaluate("Math.random = () => 0")
    v.page.click("#surprise")
    v.until("document.getElementById('canvas').dataset.prompt === '1'")
    assert picked(v) == ["small", "red", "circle", "moves right", "slowly", "on a grey background"]
    shows(v, "red", "circle")
    assert v.session["id"] == id


def test_the_gallery_starts_its_prompt_with_its_seed(port: int, visit: Callable[..., Visit]) -> None:
    v = visit(port)
    v.await_state("idle")
    expect(v.page.locator("#examples")).to_be_hidden()
    v.page.get_by_role("button", name="a large white triangle bounces on a black background").click()
    v.await_state("live")
    expect(v.page.locator("#seed-shown")).to_have_text("1")
    assert picked(v) == ["large", "white", "triangle", "bounces", "on a black background"]
    shows(v, "white", "triangle")
    first = v.session
    v.page.get_by_role("button", name="a blue square bounces").click()
    v.until("document.getElementById('seed-shown').textContent === '0'")
    shows(v, "blue", "square")
    assert v.session != first


def test_a_link_fills_in_what_it_was_made_of(port: int, visit: Callable[..., Visit]) -> None:
    v = visit(port, permissions=["clipboard-read", "clipboard-write"])
    v.await_state("idle")
    prompt = "a blue square, 100 % & more = #\U0001f388"
    v.page.fill("#prompt", prompt)
    v.page.fill("#seed", "1234")
    v.page.click("#share")
    expect(v.page.locator("#copied")).to_have_text("Link copied")
    link = v.page.evaluate("navigator.clipboard.readText()")
    assert link == v.page.url
    other = visit(port)
    other.page.goto(link)
    other.page.reload()
    other.await_state("idle")
    expect(other.page.locator("#prompt")).to_have_value(prompt)
    expect(other.page.locator("#seed")).to_have_value("1234")
    assert picked(other) == ["blue", "square"]
    other.redraws(30)
    assert other.page.get_attribute("body", "data-state") == "idle"
    assert other.session == {}
    other.page.click("#send")
    other.await_state("live")
    expect(other.page.locator("#seed-shown")).to_have_text("1234")
    other.page.reload()
    other.await_state("resumed", "live")
    expect(other.page.locator("#prompt")).to_have_value(prompt)


def test_without_a_clipboard_the_address_is_the_link(port: int, visit: Callable[..., Visit]) -> None:
    v = visit(port)
    v.await_state("idle")
    v.page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    v.page.fill("#prompt", "a red circle")
    v.page.click("#share")
    expect(v.page.locator("#copied")).to_have_text("Copy this page's address")
    assert v.page.url.endswith("/#prompt=a+red+circle&seed=0")


def test_a_model_that_offers_nothing_has_examples(
    serve: Callable[..., Running], visit: Callable[..., Visit]
) -> None:
    v = visit(int(serve().url.rsplit(":", 1)[1]))
    v.await_state("idle")
    for absent in ("#choices", "#surprise", "#gallery"):
        expect(v.page.locator(absent)).to_be_hidden()
    second = v.page.locator("#examples button").nth(1)
    second.click()
    expect(v.page.locator("#prompt")).to_have_value(second.text_content() or "")
    expect(v.page.locator("#problem")).to_contain_text("words")  # it was sent, and is too long for this model
