"""A headless Chromium, driven over its debugging pipe: real keys and widths, and all that a page says and asks for."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PATIENCE = 60.0  # seconds: a cold start on a busy machine


def find_chromium() -> str | None:
    """Return the browser: SECLI_CHROMIUM, or the first that is on the path."""
    asked = os.environ.get("SECLI_CHROMIUM")
    return shutil.which(asked) if asked else next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """One page of a browser, and what it has said so far.

    Attributes
    ----------
    errors
        Uncaught exceptions, console errors, and what the page's policy or the network refused.
    requests
        Every address that was asked for.
    """

    def __init__(self, send: int, receive: int) -> None:
        self.send, self.receive = send, receive
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._count, self._rest, self._session, self._loaded = 0, b"", "", False
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")
        self.requests.clear()

    def open(self, file: Path, width: int, height: int = 900, dark: bool = False) -> None:
        """Open a file in a window so many CSS pixels wide, as a phone would where it is narrow."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if width < 600 else 1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self._loaded = False
        self._call("Page.navigate", url=file.resolve().as_uri())
        while not self._loaded:
            self._take()

    def run(self, script: str) -> Any:
        """Return the value of a script's last expression."""
        said = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in said:
            raise AssertionError(said["exceptionDetails"])
        return said["result"].get("value")

    def press(self, key: str) -> None:
        """Press and release a key where the focus is: Enter, Tab or a space."""
        codes = {"Enter": ("Enter", 13, "\r"), " ": ("Space", 32, " "), "Tab": ("Tab", 9, "")}
        code, number, text = codes[key]
        same = {"key": key, "code": code, "windowsVirtualKeyCode": number}
        self._call("Input.dispatchKeyEvent", type="keyDown", text=text, **same)
        self._call("Input.dispatchKeyEvent", type="keyUp", **same)

    def screenshot(self, file: Path, whole: bool = True) -> None:
        """Write a picture of the page."""
        said = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(said["data"]))

    def pdf(self) -> bytes:
        """Return the page as it is printed."""
        return base64.b64decode(self._call("Page.printToPDF", printBackground=False)["data"])

    def _call(self, method: str, **parameters: Any) -> Any:
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self.send, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._take()
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return answer["result"]

    def _take(self) -> dict[str, Any]:
        """Return the browser's next message, noting down what the page did."""
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self.receive], [], [], PATIENCE)
            chunk = os.read(self.receive, 1 << 20) if ready else b""
            if not chunk:
                raise AssertionError("the browser went away" if ready else "the browser says nothing")
            self._rest += chunk
        text, self._rest = self._rest.split(b"\0", 1)
        message: dict[str, Any] = json.loads(text)
        method, said = message.get("method"), message.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Network.requestWillBeSent":
            self.requests.append(said["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(said["exceptionDetails"]))
        elif method == "Log.entryAdded" and said["entry"]["level"] in ("error", "warning"):
            self.errors.append(said["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and said["type"] in ("error", "assert"):
            self.errors.append(json.dumps(said["args"]))
        return message


@contextlib.contextmanager
def page(home: Path, program: str) -> Iterator[Page]:
    """Start a browser that reaches no host, with a profile of its own in ``home``, and give a page of it."""
    to_browser, send = os.pipe()
    receive, from_browser = os.pipe()
    command = [
        program,
        "--headless=new",
        "--no-sandbox",  # tests may run as root in a container
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={home}",
        "--remote-debugging-pipe",
    ]

    # Chromium reads its commands from descriptor 3 and answers on 4
    shell = ["bash", "-c", f'exec 3<&{to_browser} 4>&{from_browser}; exec "$@"', "bash", *command]
    environment = {**os.environ, "HOME": str(home)}
    process = subprocess.Popen(
        shell,
        pass_fds=(to_browser, from_browser),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    )
    os.close(to_browser)
    os.close(from_browser)
    try:
        yield Page(send, receive)
    finally:
        os.close(send)
        os.close(receive)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
