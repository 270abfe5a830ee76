"""A headless Chromium with real clicks and keys, spoken to over a pair of pipes.

The DevTools protocol needs no driver and no library: JSON messages that end in a zero byte, in on
file descriptor 3 and out on 4 of the browser.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-default-apps", "--disable-extensions", "--disable-dev-shm-usage", "--mute-audio",
    "--remote-debugging-pipe", "--force-color-profile=srgb", "--hide-scrollbars",
)  # fmt: skip
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
KEYS = {
    "Enter": 13, "Escape": 27, "Tab": 9, "Backspace": 8, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39,
    "ArrowDown": 40,
}  # fmt: skip
CONTROL = 2


def executable() -> str | None:
    """The browser of this machine: `NLDSL_CHROMIUM`, or the first that is installed."""
    return os.environ.get("NLDSL_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


class Chrome:
    """One browser with one page; every request that page makes is written down."""

    def __init__(self, width: int = 1500, height: int = 950) -> None:
        self.profile = tempfile.mkdtemp(prefix="chromium-")
        self.downloads = Path(tempfile.mkdtemp(prefix="downloads-"))
        program = executable()
        assert program is not None
        into, self._write = os.pipe()
        self._read, out = os.pipe()
        command = [program, *FLAGS, f"--user-data-dir={self.profile}", f"--window-size={width},{height}"]
        # The browser expects its pipes at 3 and 4, whatever they are here.
        shell = f'exec "$0" "$@" 3<&{into} 4>&{out}'
        self.process = subprocess.Popen(
            ["bash", "-c", shell, *command, "about:blank"],
            pass_fds=(into, out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(into)
        os.close(out)
        self._buffer, self._count = b"", 0
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.dialogs: list[str] = []
        """What the page asked in a box of its own; it is told `accept`."""
        self.accept = True
        self._session = ""
        self._attach(width, height)

    def _attach(self, width: int, height: int) -> None:
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(t for t in targets if t["type"] == "page")
        found = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = found["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.resize(width, height)
        self.call(
            "Browser.setDownloadBehavior",
            behavior="allow",
            downloadPath=str(self.downloads),
            eventsEnabled=False,
        )

    def resize(self, width: int, height: int) -> None:
        """Another size of the window."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; what happens meanwhile is noted."""
        number = self._send(method, params)
        while True:
            answer = self._receive(60)
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return dict(answer["result"])
            self._note(answer)

    def _send(self, method: str, params: Mapping[str, Any]) -> int:
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if self._session and not method.startswith(("Target.", "Browser.")):
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        return self._count

    def _receive(self, seconds: float) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise TimeoutError("the browser does not answer")
            more = os.read(self._read, 1 << 20)
            if not more:
                raise RuntimeError("the browser has gone")
            self._buffer += more
        message, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(message))

    def _note(self, event: Mapping[str, Any]) -> None:
        params = event.get("params", {})
        if event.get("method") == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif event.get("method") == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            said = details.get("exception", {}).get("description") or details["text"]
            self.errors.append(said)
        elif event.get("method") == "Page.javascriptDialogOpening":
            self.dialogs.append(params["message"] or params["type"])
            self._send("Page.handleJavaScriptDialog", {"accept": self.accept})
        elif event.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"])

    def open(self, address: str, dark: bool = False) -> None:
        """Load a page and wait until it stands."""
        theme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=theme)
        self.requests, self.errors, self.dialogs = [], [], []
        self.call("Page.navigate", url="about:blank")
        # A page may ask whether it should be left: the next address waits for that.
        self.wait("location.href === 'about:blank' && document.readyState === 'complete'")
        self.call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"].get("exception", {}).get("description", script))
        return answer["result"].get("value")

    def wait(self, condition: str, seconds: float = 30) -> None:
        """Until an expression is true."""
        self.until(lambda: bool(self.run(condition)), condition, seconds)

    def until(self, true: Callable[[], bool], what: str, seconds: float = 30) -> None:
        """Until a function says so."""
        end = time.monotonic() + seconds
        while not true():
            if time.monotonic() > end:
                raise TimeoutError(f"never came: {what}; errors: {self.errors}")
            time.sleep(0.03)

    def place(self, selector: str) -> tuple[float, float]:
        """The middle of an element; it must be visible."""
        script = (
            "(() => { const e = document.querySelector(%s); if (!e) return null;"
            " const b = e.getBoundingClientRect();"
            " return [b.x + b.width / 2, b.y + b.height / 2, b.width]; })()"
        )
        found = self.run(script % json.dumps(selector))
        assert found is not None, f"there is no {selector}"
        assert found[2] > 0, f"{selector} is not visible"
        return found[0], found[1]

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """One event of the mouse."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def hover(self, selector: str) -> None:
        """Move the pointer onto an element."""
        self.mouse("mouseMoved", *self.place(selector))

    def click(self, selector: str) -> None:
        """Press and let go in the middle of an element."""
        self.click_at(*self.place(selector))

    def click_at(self, x: float, y: float) -> None:
        """Press and let go at a place of the window."""
        self.mouse("mouseMoved", x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self.mouse(kind, x, y, button="left", clickCount=1)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Pull from one place to another."""
        self.mouse("mouseMoved", *start)
        self.mouse("mousePressed", *start, button="left", clickCount=1)
        for share in (0.3, 0.6, 1.0):
            x, y = (a + share * (b - a) for a, b in zip(start, end, strict=True))
            self.mouse("mouseMoved", x, y, button="left", buttons=1)
        self.mouse("mouseReleased", *end, button="left", clickCount=1)

    def key(self, name: str, control: bool = False) -> None:
        """Press a key: one sign, or a name such as `Enter`."""
        more: dict[str, Any] = {"key": name, "modifiers": CONTROL if control else 0}
        if name in KEYS:
            more |= {"windowsVirtualKeyCode": KEYS[name], "code": name}
            if name == "Enter":
                more["text"] = "\r"
        elif not control:
            more |= {"text": name}
        else:
            more |= {"windowsVirtualKeyCode": ord(name.upper()), "code": f"Key{name.upper()}"}
        self.call("Input.dispatchKeyEvent", type="keyDown", **more)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=name, modifiers=more["modifiers"])

    def type(self, text: str) -> None:
        """Every sign as a key."""
        for sign in text:
            self.key("Enter" if sign == "\n" else sign)

    def picture(self, path: str | Path) -> None:
        """A screenshot as PNG."""
        Path(path).write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def colour(self, x: float, y: float) -> tuple[int, ...]:
        """Red, green and blue of one pixel of the window."""
        clip = {"x": round(x), "y": round(y), "width": 1, "height": 1, "scale": 1}
        png = base64.b64decode(self.call("Page.captureScreenshot", format="png", clip=clip)["data"])
        start = png.index(b"IDAT") + 4
        size = int.from_bytes(png[start - 8 : start - 4], "big")
        return tuple(zlib.decompressobj().decompress(png[start : start + size])[1:4])

    def downloaded(self, ending: str) -> Path:
        """The newest whole file that was saved, with this ending."""

        def found() -> list[Path]:
            return [p for p in self.downloads.glob(f"*.{ending}") if p.stat().st_size]

        self.until(lambda: bool(found()), f"a download in .{ending}")
        return max(found(), key=lambda p: p.stat().st_mtime)

    def close(self) -> None:
        """End the browser and forget its profile."""
        try:
            self.call("Browser.close")
            self.process.wait(5)
        except (OSError, RuntimeError, TimeoutError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait(5)
        os.close(self._write)
        os.close(self._read)
        shutil.rmtree(self.profile, ignore_errors=True)
        shutil.rmtree(self.downloads, ignore_errors=True)
