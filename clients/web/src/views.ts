// What a visitor has seen: an element that was half visible for a second, while the page was in front.

const SHARE = 0.5;
const DWELL_MS = 1_000;

export class ViewWatch {
  readonly #onView: (element: Element) => void;
  readonly #observer: IntersectionObserver;
  readonly #visible = new Set<Element>();
  readonly #timers = new Map<Element, ReturnType<typeof setTimeout>>();

  constructor(onView: (element: Element) => void) {
    this.#onView = onView;
    this.#observer = new IntersectionObserver((entries) => entries.forEach((entry) => this.#update(entry)), {
      threshold: SHARE,
    });
    document.addEventListener("visibilitychange", this.#updateAll);
  }

  observe(element: Element): void {
    this.#observer.observe(element);
  }

  disconnect(): void {
    this.#observer.disconnect();
    this.#visible.clear();
    this.#updateAll();
    document.removeEventListener("visibilitychange", this.#updateAll);
  }

  #update(entry: IntersectionObserverEntry): void {
    if (entry.isIntersecting && entry.intersectionRatio >= SHARE) this.#visible.add(entry.target);
    else this.#visible.delete(entry.target);
    this.#updateAll();
  }

  /** Begin to wait for what became visible, and end to wait for what no longer is. */
  readonly #updateAll = (): void => {
    const inFront = document.visibilityState === "visible";
    for (const [element, timer] of this.#timers) {
      if (inFront && this.#visible.has(element)) continue;
      clearTimeout(timer);
      this.#timers.delete(element);
    }
    for (const element of inFront ? this.#visible : []) {
      if (!this.#timers.has(element)) this.#timers.set(element, setTimeout(() => this.#finish(element), DWELL_MS));
    }
  };

  #finish(element: Element): void {
    this.#observer.unobserve(element);
    this.#visible.delete(element);
    this.#timers.delete(element);
    this.#onView(element);
  }
}
