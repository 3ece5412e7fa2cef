"""The page Explore in a browser: dials, comparisons, the story of an item, imagined events."""


def list_titles(tab, side="a"):
    return tab.page.locator(f"section[aria-labelledby=slate-{side}] h3").all_inner_texts()


def test_a_dial_changes_the_second_slate_at_once_and_the_address_with_it(open_console_tab):
    tab = open_console_tab(viewport={"width": 1400, "height": 900})
    tab.open("/explore?user=u3")
    before = list_titles(tab)
    dial = tab.page.get_by_label("Variety")
    dial.focus()
    tab.page.keyboard.press("End")
    tab.page.locator("#slate-b").wait_for()
    assert tab.page.evaluate("document.activeElement.id") == "f-diversity"  # the keyboard stays on the dial
    assert tab.page.url.endswith("/explore?user=u3&diversity=1") and list_titles(tab) == before
    second = list_titles(tab, "b")
    assert len(second) == 10 and any("new here" in title or "▲" in title for title in second)
    assert "items are new here" in tab.page.locator("#live").inner_text()
    tab.page.reload()
    assert list_titles(tab, "b") == second  # the address says it all
    tab.page.get_by_role("link", name="Reset").click()
    tab.page.locator("#slate-b").wait_for(state="detached")
    assert tab.page.url.endswith("/explore?user=u3")
    tab.page.go_back()
    tab.page.locator("#slate-b").wait_for()
    assert tab.mistakes == [] and tab.foreign == []


def test_an_item_tells_its_story_and_an_imagined_event_changes_the_slate(open_console_tab):
    tab = open_console_tab(viewport={"width": 1400, "height": 900})
    tab.open("/explore?user=u3")
    before = list_titles(tab)
    tab.page.get_by_role("link", name=f"Why is {before[1]} here?").click()
    story = tab.page.locator(".story")
    story.get_by_text("Shown at place 2.").wait_for()
    assert tab.page.evaluate("document.activeElement.id") == "story-title"  # a screen reader reads on from here
    assert story.locator(".steps > li").count() == 5 and tab.find_serious() == []
    story.get_by_role("link", name="Close the story").click()
    story.wait_for(state="detached")
    tab.page.get_by_label("Find an item").press_sequentially("Title 7")
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_url("**/explore?user=u3&find=Title+7")
    tab.page.get_by_role("link", name="Why is Title 7 here, or not?").click()
    tab.page.locator(".outcome", has_text="Not shown: not available.").wait_for()
    tab.page.get_by_role("link", name="Close the story").click()
    story.wait_for(state="detached")  # the answer to this click would replace that to the next
    tab.page.get_by_role("link", name=f"Imagine: like {before[0]}", exact=True).click()
    tab.page.get_by_text("Imagined, and stored nowhere").wait_for()
    assert before[0] not in list_titles(tab)  # home repeats nothing
    tab.page.get_by_role("link", name="Forget all").click()
    tab.page.get_by_text("Imagined, and stored nowhere").wait_for(state="detached")
    assert list_titles(tab) == before and tab.shop.list_events() == [] and tab.mistakes == []


def test_somebody_is_invented_by_choosing_items(open_console_tab):
    tab = open_console_tab(viewport={"width": 1400, "height": 900})
    tab.open("/explore")
    tab.page.get_by_role("link", name="Invent somebody").click()
    tab.page.get_by_role("heading", name="What does this person like?").wait_for()
    before = list_titles(tab)
    tab.page.locator(".asked li").first.get_by_role("link", name="Imagine: like").click()
    tab.page.get_by_text("like, imagined").wait_for()
    assert list_titles(tab) != before and tab.mistakes == []
    tab.page.get_by_label("Second slate").select_option("surface:email")
    tab.page.locator("#slate-b").wait_for()
    assert len(list_titles(tab, "b")) == 5 and "event=like" in tab.page.url


def test_people_are_offered_while_one_types(open_console_tab):
    tab = open_console_tab()
    tab.open("/explore")
    tab.page.get_by_label("Person (id)").press_sequentially("zed")
    tab.page.get_by_text("Nobody known begins with “zed”").wait_for()
    tab.page.keyboard.press("Enter")
    tab.page.locator("#slate-a").wait_for()
    assert tab.page.url.endswith("/explore?user=zed") and len(list_titles(tab)) == 10
