"""The server of the studio, spoken to without a browser: who may ask, what it answers, what it writes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest

from nldsl.diagnostics import SpecError
from nldsl.studio import Studio, open_studio
from nldsl.studio.file import EditedFile
from nldsl.studio.jobs import Desk, run
from nldsl.studio.server import MOST

TEXT = "block b(x) {\n  return norm(x)\n}\n"


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    (tmp_path / "mine.nl").write_text(TEXT)
    server = open_studio(str(tmp_path / "mine.nl"), "")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(5)


def send(studio: Studio, method: str, path: str, body: bytes = b"", **headers: str) -> HTTPResponse:
    wire = HTTPConnection("127.0.0.1", studio.server_port, timeout=30)
    wire.putrequest(method, path, skip_host="Host" in headers)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    for name, value in {"Content-Length": str(len(body)), **named}.items():
        wire.putheader(name, value)
    wire.endheaders(body)
    answer = wire.getresponse()
    answer.read_all = answer.read()  # type: ignore[attr-defined]
    return answer


def ask(studio: Studio, what: str, **more: object) -> dict[str, object]:
    answer = send(studio, "POST", "/do", json.dumps({"what": what, **more}).encode(), X_Token=studio.token)
    assert answer.status == 200
    return dict(json.loads(answer.read_all))  # type: ignore[attr-defined]


def test_it_listens_on_this_machine_only(studio: Studio) -> None:
    assert studio.server_address[0] == "127.0.0.1"
    assert studio.address.startswith("http://127.0.0.1:") and studio.token in studio.address


def test_without_the_token_nothing_is_told(studio: Studio) -> None:
    for path in ("/", "/?token=", "/?token=guess", "/graph/x", f"/?token={studio.token[:-1]}"):
        answer = send(studio, "GET", path)
        assert answer.status == 403 and TEXT.encode() not in answer.read_all  # type: ignore[attr-defined]
    assert send(studio, "POST", "/do", b"{}").status == 403
    # The address alone is not enough for a request that does something.
    assert send(studio, "POST", f"/do?token={studio.token}", b"{}").status == 403


def test_other_hosts_and_origins_are_refused(studio: Studio) -> None:
    """What a page elsewhere could make a browser send: a rebound name, a foreign origin."""
    path = f"/?token={studio.token}"
    assert send(studio, "GET", path).status == 200
    assert send(studio, "GET", path, Host="evil.example").status == 403
    assert send(studio, "GET", path, Host=f"evil.example:{studio.server_port}").status == 403
    assert send(studio, "GET", path, Origin="http://evil.example").status == 403
    assert send(studio, "POST", "/do", b"{}", X_Token=studio.token, Origin="null").status == 403


def test_the_page_may_load_nothing_from_elsewhere(studio: Studio) -> None:
    answer = send(studio, "GET", f"/?token={studio.token}")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cache-Control"] == "no-store"
    assert send(studio, "GET", f"/graph/none?token={studio.token}").status == 404
    assert send(studio, "GET", f"/../../etc/passwd?token={studio.token}").status == 404


@pytest.mark.parametrize(
    ("body", "status"), [(b"no json", 400), (b"[1]", 400), (b"[" * 100_000, 400), (b"\xff\xfe", 400)]
)
def test_what_is_no_request_is_refused(studio: Studio, body: bytes, status: int) -> None:
    assert send(studio, "POST", "/do", body, X_Token=studio.token).status == status


def test_requests_are_bounded(studio: Studio) -> None:
    length = str(MOST + 1)
    assert send(studio, "POST", "/do", Content_Length=length, X_Token=studio.token).status == 413
    assert send(studio, "POST", "/do", Content_Length="-1", X_Token=studio.token).status == 411


def test_unknown_requests_and_texts_that_are_none(studio: Studio) -> None:
    assert "unknown request" in str(ask(studio, "run")["failed"])
    assert ask(studio, "check", text=3) == {"failed": "the text is not a text"}
    assert ask(studio, "save", text=None) == {"failed": "the text is not a text"}


def test_saving_writes_the_one_file_and_asks_if_it_changed(studio: Studio, tmp_path: Path) -> None:
    file = tmp_path / "mine.nl"
    send(studio, "GET", f"/?token={studio.token}")
    seen = studio.file.mark
    answer = ask(studio, "save", text="# one\n", seen=seen, path="/tmp/elsewhere")
    assert answer["saved"] == "mine.nl" and file.read_text() == "# one\n"
    # A second page that still shows the first text does not overwrite what the first one saved.
    assert "has changed" in str(ask(studio, "save", text="# two\n", seen=seen)["conflict"])
    assert file.read_text() == "# one\n"
    file.unlink()
    assert "is gone" in str(ask(studio, "save", text="# two\n", seen=answer["seen"])["conflict"])
    assert "saved" in ask(studio, "save", text="# two\n", seen=answer["seen"], anyway=True)
    assert file.read_text() == "# two\n"
    assert [p.name for p in tmp_path.iterdir()] == ["mine.nl"]


def test_a_page_shows_what_the_file_holds_now(studio: Studio, tmp_path: Path) -> None:
    (tmp_path / "mine.nl").write_text("# from another editor\n")
    page = send(studio, "GET", f"/?token={studio.token}").read_all.decode()  # type: ignore[attr-defined]
    assert "# from another editor" in page


def test_line_ends_marks_links_and_rights_stay(tmp_path: Path) -> None:
    real = tmp_path / "real.nl"
    real.write_bytes(b"\xef\xbb\xbf# a\r\n# b\r\n")
    real.chmod(0o640)
    (tmp_path / "link.nl").symlink_to(real)
    file = EditedFile(tmp_path / "link.nl", "")
    file.look()
    assert file.text == "# a\n# b\n"
    assert "saved" in file.save("# a\n# c\n", file.mark, anyway=False)
    assert real.read_bytes() == b"\xef\xbb\xbf# a\r\n# c\r\n"
    assert (tmp_path / "link.nl").is_symlink() and real.stat().st_mode & 0o777 == 0o640


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    file = EditedFile(tmp_path / "missing" / "a.nl", "")
    assert "could not be written" in file.save("x", "", anyway=False)["failed"]
    assert "there is no file" in EditedFile(None, "").save("x", "", anyway=False)["failed"]


def test_half_a_character_harms_nothing(studio: Studio, tmp_path: Path) -> None:
    assert ask(studio, "save", text="# \ud83d\n", seen="", anyway=True)["saved"] == "mine.nl"
    assert (tmp_path / "mine.nl").read_text() == "# \N{REPLACEMENT CHARACTER}\n"


def test_what_can_be_opened(tmp_path: Path) -> None:
    new = open_studio(str(tmp_path / "new.nl"), TEXT)
    copy = open_studio("hope", TEXT)
    none = open_studio(None, TEXT)
    try:
        assert (new.file.path, new.file.text) == (tmp_path / "new.nl", TEXT)
        assert (copy.file.path, copy.name) == (None, "hope.nl") and "model hope" in copy.file.text
        assert none.file.path is None and none.name == "untitled.nl"
    finally:
        for each in (new, copy, none):
            each.server_close()
    with pytest.raises(SpecError):
        open_studio("no_such_spec", TEXT)
    with pytest.raises(SpecError):
        open_studio(str(tmp_path / "no folder" / "a.nl"), TEXT)


def test_a_port_is_given_once(studio: Studio) -> None:
    with pytest.raises(OSError, match="in use"):
        open_studio(None, TEXT, studio.server_port)


BAD = (
    *(
        "",
        "{",
        "block",
        "block b(",
        "block b(x) {",
        "\x00",
        "\ufeff",
        "😀" * 50,
        "model m(tokens) { return }",
    ),
    *("nldsl: 1", TEXT + "}", "(" * 3000, "# only a comment", "train t { }", "x = 1"),
)


@pytest.mark.parametrize("text", BAD)
def test_every_job_survives_every_text(text: str) -> None:
    desk = Desk("mine.nl")
    for what, more in (("check", {}), ("complete", {"at": len(text)}), ("tell", {"at": 1}), ("format", {}),
                       ("picture", {})):  # fmt: skip
        answer = run(desk, what, {"text": text, **more})
        json.dumps(answer)
        assert "failed" not in answer, what


def test_findings_have_columns_as_a_browser_counts() -> None:
    answer = run(Desk("mine.nl"), "check", {"text": "block b(x) {\n  # 😀\n  return nrm(x)\n}\n"})
    (finding,) = (f for f in answer["findings"] if f["severity"] == "error")
    text = "block b(x) {\n  # 😀\n  return nrm(x)\n}\n".encode("utf-16-le")
    assert text[2 * finding["start"] : 2 * finding["end"]].decode("utf-16-le") == "nrm"
    assert any(fix["text"] == "norm" for fix in finding["fixes"])


def test_the_answers_hold_graph_tables_timeline_and_source() -> None:
    desk = Desk("mine.nl")
    picture = run(desk, "picture", {"text": (Path("specs/blocks/gated_deltanet.nl")).read_text()})
    assert picture["name"] == "gated_deltanet" and picture["page"].startswith("<!doctype html>")
    assert picture["timeline"].startswith("<svg") and any(t["rows"] for t in picture["tables"])
    source = run(desk, "source", {"text": (Path("specs/blocks/gated_deltanet.nl")).read_text()})
    line = source["classes"]["GatedDeltanet"]
    assert source["source"].splitlines()[line - 1].startswith("class GatedDeltanet")
