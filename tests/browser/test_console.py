"""The console in a real browser against a real grid, by mouse and by keyboard; its console log must stay clean."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from gridclient.wire.errors import SessionStoppedError
from gridclient.wire.messages import Column
from tests.factories.grid import LiveGrid
from tests.factories.raw import RawClient, listed_sessions, rest, sign_in

DRIVER = shutil.which("chromedriver")
PASSWORD = "a long enough password"
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1280,900"
)
# Made for this module alone: the grid is shared with other tests.
PEOPLE = {"ona": "owner", "sci": "scientist", "aud": "auditor", "adm": "administrator"}

pytestmark = pytest.mark.skipif(DRIVER is None, reason="needs Chromium and its driver")


class Browser:
    """One window, and what a person does in it."""

    def __init__(self, folder: Path, url: str) -> None:
        options = webdriver.ChromeOptions()
        for flag in FLAGS.split():
            options.add_argument(flag)
        options.add_argument(f"--user-data-dir={folder}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
        self.url = url

    def open(self, path: str) -> None:
        self.driver.get(f"{self.url}{path}")

    def sign_in(self, username: str, password: str = PASSWORD) -> None:
        self.driver.delete_all_cookies()
        self.open("/admin/")
        self.find("[name=username]").send_keys(username)
        self.find("[name=password]").send_keys(password + Keys.ENTER)
        self.wait(lambda: self.driver.find_elements(By.CSS_SELECTOR, "#needs-me, .errornote"))

    def find(self, selector: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def has(self, selector: str) -> bool:
        return bool(self.driver.find_elements(By.CSS_SELECTOR, selector))

    def click(self, selector: str) -> None:
        """Click what leads to another page, and wait for it."""
        self.leave(self.find(selector).click)

    def leave(self, act: Callable[[], object]) -> None:
        page = self.find("html").id
        act()
        self.wait(lambda: self.find("html").id != page and self.ready())

    def ready(self) -> bool:
        return bool(self.driver.execute_script("return document.readyState") == "complete")

    def wait(self, until: Callable[[], object]) -> None:
        WebDriverWait(self.driver, 15, poll_frequency=0.05, ignored_exceptions=(Exception,)).until(lambda _: until())

    def focused(self) -> str:
        """Tag and text of what has the focus."""
        return str(
            self.driver.execute_script(
                "const e = document.activeElement, words = e.getAttribute('aria-label') || e.textContent;"
                "return e.tagName + ' ' + words.trim().replace(/\\s+/g, ' ')"
            )
        )

    def tab_to(self, wanted: Callable[[str, str], bool], most: int = 60) -> bool:
        """Press Tab until what has the focus is wanted, by its words and its address."""
        for _ in range(most):
            self.driver.switch_to.active_element.send_keys(Keys.TAB)
            if wanted(self.focused(), self.driver.switch_to.active_element.get_attribute("href") or ""):
                return True
        return False

    @property
    def text(self) -> str:
        return str(self.find("body").text)

    def log(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.fixture(scope="module")
def window(grid: LiveGrid, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("browser"), grid.hospital.url)
    yield browser
    browser.driver.quit()


@pytest.fixture
def browser(window: Browser) -> Iterator[Browser]:
    """The window; whatever a test does, the browser has nothing to complain of."""
    window.log()
    yield window
    assert window.log() == []


@pytest.fixture(scope="module")
def requests(grid: LiveGrid) -> list[str]:
    """Two requests of the scientist for rows of the owner's data, and the people."""
    url = grid.hospital.url
    token = sign_in(url, grid.hospital.username, grid.hospital.password)
    for username, role in PEOPLE.items():
        made = rest(
            "POST", f"{url}/api/users/", {"username": username, "password": PASSWORD, "roles": [role]}, token=token
        )
        assert made[0] == 201, made
    columns = [Column("a", low=0.0, high=50.0), Column("b", low=0.0, high=50.0)]
    with RawClient(url, sign_in(url, "ona", PASSWORD)) as owner:
        dataset = owner.publish(
            np.arange(40.0).reshape(20, 2), name="Console births", tags=["#births"], columns=columns
        )
    with RawClient(url, sign_in(url, "sci", PASSWORD)) as scientist:
        values = scientist.asset(dataset)
        rows = [scientist.node("aten::select.int", values, 0, number) for number in range(2)]
        return [scientist.request(row, f"Row {number} for the paper.") for number, row in enumerate(rows)]


def test_a_wrong_password_lets_nobody_in(requests: list[str], browser: Browser) -> None:
    browser.sign_in("ona", "not the password")
    assert browser.has(".errornote") and not browser.has("#needs-me")


def test_an_owner_reads_a_request_and_approves_it(requests: list[str], browser: Browser, grid: LiveGrid) -> None:
    browser.sign_in("ona")
    assert browser.driver.title == "Home | hospital · Gridsite"
    assert "sci asks for 2 numbers" in browser.text
    browser.click(".console-rows a")
    assert "Row 0 for the paper." in browser.text and "console-births (version 1)" in browser.text

    # Without a reason nothing happens, and the page says so.
    browser.click("[data-testid=approve]")
    assert "Write a reason." in browser.text
    browser.find("#approve-reason").send_keys("One row is fine.")
    browser.click("[data-testid=approve]")
    assert "Approved. The program runs now" in browser.text and not browser.has("[data-testid=approve]")
    with RawClient(grid.hospital.url, sign_in(grid.hospital.url, "sci", PASSWORD)) as scientist:
        browser.wait(lambda: scientist.fetch(requests[0]).tolist() == [0.0, 1.0])
    browser.driver.refresh()
    assert "approved and delivered" in browser.text

    browser.click("[data-testid=next]")
    browser.find("#approve-reason").send_keys("One is enough.")
    browser.click("[data-testid=deny]")
    assert "Denied. The requester sees your reason." in browser.text and "One is enough." in browser.text


def test_an_administrator_makes_an_account_and_closes_it(requests: list[str], browser: Browser) -> None:
    browser.sign_in("adm")
    browser.open("/admin/accounts/user/")
    browser.click("a[href='add/']")
    browser.find("[name=username]").send_keys("nora")
    browser.find("[name=password]").send_keys("12345678")
    browser.click("button.console-good")
    assert "too common" in browser.text
    browser.find("[name=password]").send_keys(PASSWORD)
    browser.find("[value=owner]").click()
    browser.click("button.console-good")
    assert "Data owner" in browser.text
    browser.find("[data-testid=close] summary").click()
    browser.click("[data-testid=close] button")
    assert "nora is closed" in browser.text and not browser.has("[data-testid=close]")
    browser.sign_in("nora")
    assert browser.has(".errornote")


def test_an_auditor_sees_all_and_can_do_nothing(requests: list[str], browser: Browser) -> None:
    browser.sign_in("aud")
    links = [
        str(link.get_attribute("href")) for link in browser.driver.find_elements(By.CSS_SELECTOR, "#nav-sidebar a")
    ]
    lists = [link for link in links if link.count("/") == 6]
    assert len(lists) == 18
    for address in lists:
        browser.driver.get(address)
        assert not browser.has("a[href='add/']"), address
        if browser.has("#result_list .data-row a"):
            browser.click("#result_list .data-row a")
            assert browser.has(".console-facts") and not browser.has("#main form[method=post]"), address


def test_lists_menus_and_filters_work_by_keyboard_alone(requests: list[str], browser: Browser) -> None:
    browser.sign_in("ona")
    browser.open("/admin/datarequests/datarequest/")
    seen: list[str] = []
    for _ in range(40):
        browser.driver.switch_to.active_element.send_keys(Keys.TAB)
        seen.append(browser.focused())
        if seen[-1] == "BUTTON Filters":
            break
    assert seen[-1] == "BUTTON Filters" and "BUTTON Sidebar" in seen and any("ona" in each for each in seen)
    browser.driver.switch_to.active_element.send_keys(Keys.ENTER)
    browser.wait(lambda: browser.focused().startswith("A "))
    assert browser.driver.execute_script("return !!document.activeElement.closest('#changelist-filter')")
    browser.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    browser.wait(lambda: browser.focused() == "BUTTON Filters")


def test_an_administrator_stops_a_session_by_keyboard_and_sees_it_go(
    requests: list[str], browser: Browser, grid: LiveGrid
) -> None:
    browser.sign_in("adm")
    with RawClient(grid.hospital.url, sign_in(grid.hospital.url, "sci", PASSWORD)) as scientist:
        session = str(UUID(scientist.welcome.session))
        page = f"/admin/compute/livesession/{session}/change/"
        browser.wait(lambda: session in listed_sessions(grid.hospital.url, scientist.token))
        browser.open("/admin/compute/livesession/?q=sci")
        assert browser.tab_to(lambda words, href: page in href)
        browser.leave(lambda: browser.driver.switch_to.active_element.send_keys(Keys.ENTER))
        assert "Stop this session" in browser.text and "sci" in browser.text
        assert browser.tab_to(lambda words, href: words.startswith("SUMMARY Stop this session"))
        browser.driver.switch_to.active_element.send_keys(Keys.ENTER + Keys.TAB + "Maintenance tonight." + Keys.TAB)
        assert browser.focused() == "BUTTON Stop this session"
        browser.leave(lambda: browser.driver.switch_to.active_element.send_keys(Keys.ENTER))
        assert "The session of sci is being stopped" in browser.text
        with pytest.raises(SessionStoppedError, match=r"ended this session: Maintenance tonight\."):
            scientist.receive()
        # Nobody touches the page: it looks again by itself.
        browser.wait(lambda: not browser.has(f"a[href*='{session}']"))
        assert "Node" in browser.driver.title


def test_a_narrow_window_has_the_menu_and_nothing_is_cut_off(requests: list[str], browser: Browser) -> None:
    browser.sign_in("ona")
    try:
        browser.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        )
        for path in (
            "",
            "datarequests/datarequest/",
            f"datarequests/datarequest/{requests[0]}/change/",
            "permissions/grant/add/",
        ):
            browser.open(f"/admin/{path}")
            assert browser.driver.execute_script("return document.documentElement.scrollWidth") <= 390, path
        browser.sign_in("aud")
        browser.open("/admin/compute/livesession/")
        assert browser.driver.execute_script("return document.documentElement.scrollWidth") <= 390
        browser.find("[aria-label=Menu]").click()
        browser.wait(lambda: browser.find("#nav-sidebar a").is_displayed())
    finally:
        browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
