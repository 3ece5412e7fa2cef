// What a visitor has seen: an element that was half visible for a second, while the page was in front.
const SHARE = 0.5;
const DWELL_MS = 1_000;
export class ViewWatch {
    #onView;
    #observer;
    #visible = new Set();
    #timers = new Map();
    constructor(onView) {
        this.#onView = onView;
        this.#observer = new IntersectionObserver((entries) => entries.forEach((entry) => this.#update(entry)), {
            threshold: SHARE,
        });
        document.addEventListener("visibilitychange", this.#updateAll);
    }
    observe(element) {
        this.#observer.observe(element);
    }
    disconnect() {
        this.#observer.disconnect();
        this.#visible.clear();
        this.#updateAll();
        document.removeEventListener("visibilitychange", this.#updateAll);
    }
    #update(entry) {
        if (entry.isIntersecting && entry.intersectionRatio >= SHARE)
            this.#visible.add(entry.target);
        else
            this.#visible.delete(entry.target);
        this.#updateAll();
    }
    /** Begin to wait for what became visible, and end to wait for what no longer is. */
    #updateAll = () => {
        const inFront = document.visibilityState === "visible";
        for (const [element, timer] of this.#timers) {
            if (inFront && this.#visible.has(element))
                continue;
            clearTimeout(timer);
            this.#timers.delete(element);
        }
        for (const element of inFront ? this.#visible : []) {
            if (!this.#timers.has(element))
                this.#timers.set(element, setTimeout(() => this.#finish(element), DWELL_MS));
        }
    };
    #finish(element) {
        this.#observer.unobserve(element);
        this.#visible.delete(element);
        this.#timers.delete(element);
        this.#onView(element);
    }
}
//# sourceMappingURL=views.js.map