// <handsell-slate>: recommendations on a page, whose views and clicks are logged.
//
//   <script type="module" src="/handsell/slate.js"></script>
//   <handsell-slate service="https://recommend.example" user-id="u1" token-url="/token" href="/item/{item_id}"
//     heading="For you"></handsell-slate>
import { createCard, createElement, REASONS } from "./cards.js";
import { HandsellClient } from "./client.js";
import { STYLES } from "./styles.js";
import { fetchTokens } from "./tokens.js";
import { ViewWatch } from "./views.js";
const ASKED_BY = [
    "service", "user-id", "anonymous-id", "token", "token-url", "surface", "count", "filter", "similar-to",
]; // prettier-ignore
const SHOWN_BY = ["heading", "href", "image", "loading-text", "empty-text", "error-text", "retry-text"];
const TEXTS = {
    "loading-text": "Loading recommendations",
    "empty-text": "Nothing to recommend yet.",
    "error-text": "Recommendations cannot be shown at the moment.",
    "retry-text": "Try again",
};
const SKELETONS = 4;
const MOST_ITEMS = 30;
const CLIENTS = new Map(); // slates of one visitor share a queue of events
let STYLE_SHEET; // of a script, which a content security policy allows
const ElementBase = globalThis.HTMLElement ?? class {
}; // a server that renders pages may import this file
export class HandsellSlate extends ElementBase {
    static observedAttributes = [...ASKED_BY, ...SHOWN_BY];
    #root;
    #answer;
    #views;
    #request = 0;
    #isScheduled = false;
    /** The slate that is shown; undefined while there is none. */
    get answer() {
        return this.#answer;
    }
    /** The client of this slate, for events of the page itself. */
    get client() {
        return shareClient(this);
    }
    connectedCallback() {
        if (!this.shadowRoot) {
            this.attachShadow({ mode: "open" }).adoptedStyleSheets = [STYLE_SHEET ??= createStyleSheet()];
        }
        if (this.#answer)
            this.#showItems(this.#answer); // moved within the page
        else
            this.#schedule();
    }
    disconnectedCallback() {
        this.#request += 1;
        this.#views?.disconnect();
    }
    attributeChangedCallback(name, before, after) {
        if (before === after)
            return;
        if (!ASKED_BY.includes(name)) {
            if (this.isConnected && this.#answer)
                this.#showItems(this.#answer);
            return;
        }
        this.#answer = undefined;
        if (this.isConnected)
            this.#schedule();
    }
    /** Ask for another slate. */
    async reload() {
        const request = ++this.#request;
        this.#answer = undefined;
        this.#showLoading();
        try {
            const answer = await this.#ask();
            if (request === this.#request)
                this.#showAnswer(answer);
        }
        catch (error) {
            if (request === this.#request)
                this.#showError(error);
        }
    }
    /** Log an event of an item, such as a purchase; one of the slate gets its position. */
    track(type, itemId, value) {
        const item = this.#answer?.items.find((one) => one.item_id === itemId);
        return this.client.track({ ...this.#describe(item), type, item_id: itemId, ...(value !== undefined && { value }) });
    }
    /** Load once, however many attributes are set in a row. */
    #schedule() {
        if (this.#isScheduled)
            return;
        this.#isScheduled = true;
        queueMicrotask(() => {
            this.#isScheduled = false;
            if (this.isConnected)
                void this.reload();
        });
    }
    async #ask() {
        const count = Number(this.getAttribute("count"));
        const options = {
            ...(count && { count }),
            ...(this.getAttribute("filter") && { filter: this.getAttribute("filter") }),
            include: ["metadata"],
        };
        const similarTo = this.getAttribute("similar-to");
        if (similarTo)
            return this.client.similar({ ...options, item_id: similarTo });
        return this.client.recommend({ ...options, surface: this.getAttribute("surface") || "home" });
    }
    // -- states ----------------------------------------------------------------------------------------------------
    #showLoading() {
        const list = createElement("ul", "list");
        list.setAttribute("aria-hidden", "true");
        const count = Math.min(Number(this.getAttribute("count")) || SKELETONS, MOST_ITEMS);
        for (let i = 0; i < count; i++)
            list.append(createElement("li", "skeleton"));
        this.#show("unseen", this.#text("loading-text"), list);
    }
    #showAnswer(answer) {
        this.#answer = answer;
        this.#showItems(answer);
        this.#dispatch("handsell-slate", { answer });
    }
    #showItems(answer) {
        if (!answer.items.length) {
            this.#show("message", this.#text("empty-text"));
            return;
        }
        const list = createElement("ul", "list");
        list.setAttribute("role", "list"); // Safari forgets it where the list has no bullets
        const reasons = this.hasAttribute("similar-to") ? {} : (this.reasons ?? REASONS); // there the heading says why
        const settings = { href: this.getAttribute("href"), image: this.getAttribute("image"), reasons };
        const items = new Map();
        for (const item of answer.items) {
            const card = createElement("li", "card");
            card.append(this.renderItem?.(item) ?? createCard(item, settings));
            const onClick = (event) => this.#logClick(item, event);
            card.addEventListener("click", onClick);
            card.addEventListener("auxclick", (event) => event.button === 1 && onClick(event)); // another tab
            items.set(card, item);
            list.append(card);
        }
        this.#show("unseen", "", list);
        this.#views = new ViewWatch((card) => this.#logView(items.get(card)));
        for (const card of items.keys())
            this.#views.observe(card);
    }
    #showError(error) {
        console.error("handsell:", error instanceof Error ? error.message : error);
        const retry = createElement("button", "retry", this.#text("retry-text"));
        retry.type = "button";
        retry.addEventListener("click", () => void this.#retry());
        this.#show("message", this.#text("error-text"), retry);
        this.#dispatch("handsell-error", { error });
    }
    /** Ask again, and give the focus of the button that is gone to what has come. */
    async #retry() {
        await this.reload();
        this.shadowRoot?.querySelector("a, button")?.focus();
    }
    /** Replace what is shown. The message is announced, since its element was there before its text. */
    #show(kind, message, content) {
        this.#views?.disconnect();
        this.#root ??= createRoot(this.shadowRoot);
        const { section, heading, status, place } = this.#root;
        const title = this.getAttribute("heading") ?? "";
        heading.textContent = title;
        heading.hidden = !title;
        if (title)
            section.removeAttribute("aria-label");
        else
            section.setAttribute("aria-label", "Recommendations");
        status.className = kind;
        status.textContent = message;
        place.replaceChildren(...(content ? [content] : []));
    }
    #text(name) {
        return this.getAttribute(name) ?? TEXTS[name] ?? "";
    }
    // -- events ----------------------------------------------------------------------------------------------------
    #logView(item) {
        if (!item || !this.#answer)
            return;
        const type = this.getAttribute("view-type") || "impression"; // `none` logs nothing
        const event_id = `${this.#answer.recommendation_id}:${type}:${item.rank}`; // seen once, also after a reload
        this.#log({ ...this.#describe(item), type, item_id: item.item_id, event_id });
        this.#dispatch("handsell-view", { item, answer: this.#answer });
    }
    #logClick(item, event) {
        const path = event.composedPath();
        const inCard = path.slice(0, path.indexOf(event.currentTarget));
        if (!this.#answer || !inCard.some((node) => node instanceof Element && node.matches("a, button")))
            return;
        const type = this.getAttribute("click-type") || "click";
        this.#log({ ...this.#describe(item), type, item_id: item.item_id });
        if (!this.#dispatch("handsell-click", { item, answer: this.#answer }))
            event.preventDefault();
    }
    /** Send an event, unless nobody is known whose it could be. */
    #log(event) {
        const isKnown = this.getAttribute("user-id") || this.getAttribute("anonymous-id");
        if (isKnown && event.type !== "none")
            this.client.track(event);
    }
    #describe(item) {
        if (!item || !this.#answer)
            return {};
        const { recommendation_id, surface } = this.#answer;
        return { recommendation_id, surface, position: item.rank };
    }
    /** Return false where the page has called preventDefault. */
    #dispatch(name, detail) {
        return this.dispatchEvent(new CustomEvent(name, { detail, bubbles: true, composed: true, cancelable: true }));
    }
}
function createStyleSheet() {
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(STYLES);
    return sheet;
}
function createRoot(shadow) {
    const section = createElement("section", "section");
    const [heading, status, place] = [createElement("h2", "heading"), createElement("p", "unseen"), createElement("div", "")];
    heading.id = "heading";
    section.setAttribute("aria-labelledby", "heading");
    status.setAttribute("role", "status");
    status.setAttribute("part", "message");
    section.append(heading, status, place);
    shadow.append(section);
    return { section, heading, status, place };
}
/** Return the client of a slate, the same for all slates of a visitor. */
function shareClient(slate) {
    const [service, userId, anonymousId, token, tokenUrl] = [
        "service", "user-id", "anonymous-id", "token", "token-url",
    ].map((name) => slate.getAttribute(name) ?? undefined); // prettier-ignore
    const key = JSON.stringify([service, userId, anonymousId, token, tokenUrl]);
    const source = slate.getToken ?? (tokenUrl ? fetchTokens(tokenUrl) : token);
    let client = CLIENTS.get(key);
    if (!client) {
        client = new HandsellClient({ service: service ?? "", userId, anonymousId, token: source });
        CLIENTS.set(key, client);
    }
    return client;
}
globalThis.customElements?.define("handsell-slate", HandsellSlate);
//# sourceMappingURL=slate.js.map