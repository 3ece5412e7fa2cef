// Delivery of events: at least once, each with the same id.
//
// The store counts events with the same id once, so that a batch whose answer was lost is sent again as it is. What
// waits is kept in the tab's session storage: the next page of the shop sends what this one could not. Events have no
// time, since clocks of visitors are wrong: the service takes the time of arrival.

import { HandsellError } from "./errors.js";
import type { Event as ShopEvent, EventsAnswer } from "./models.js";
import { drawWait } from "./transport.js";

export type IdentifiedEvent = ShopEvent & { event_id: string };
export type OnLost = (events: ShopEvent[], error: Error) => void;
export type SendEvents = (events: ShopEvent[]) => Promise<EventsAnswer>;

const BATCH = 50; // far below the 64 KiB that a browser takes from a page that is left
const MOST = 500;
const FLUSH_AFTER_MS = 1_000;
const LONGEST_WAIT_MS = 30_000;

export class EventQueue {
  readonly #send: SendEvents;
  readonly #storageKey: string;
  readonly #onLost: OnLost;
  #waiting: IdentifiedEvent[];
  #sending = new Set<string>();
  #failures = 0;
  #notBefore = 0; // a service that asks for time gets it, also when the page is left
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(send: SendEvents, storageKey: string, onLost: OnLost) {
    this.#send = send;
    this.#storageKey = storageKey;
    this.#onLost = onLost;
    this.#waiting = this.#restore();
    if (this.#waiting.length) this.#schedule(0);
    addEventListener("pagehide", this.#sendNow);
    document.addEventListener("visibilitychange", this.#sendIfHidden);
  }

  add(event: IdentifiedEvent): void {
    if (this.#waiting.length >= MOST) {
      this.#onLost([event], new Error(`${MOST} events wait already: check that the service answers`));
      return;
    }
    this.#waiting.push(event);
    this.#keep();
    this.#schedule(FLUSH_AFTER_MS);
  }

  /** Send what waits; resolves when the service has it, or has failed to take it. */
  async flush(): Promise<void> {
    if (Date.now() < this.#notBefore) return;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const batch = this.#waiting.filter((event) => !this.#sending.has(event.event_id)).slice(0, BATCH);
    if (!batch.length) return;
    batch.forEach((event) => this.#sending.add(event.event_id));
    const isTaken = await this.#deliver(batch);
    batch.forEach((event) => this.#sending.delete(event.event_id));
    if (isTaken) {
      this.#failures = 0;
      const ids = new Set(batch.map((event) => event.event_id));
      this.#waiting = this.#waiting.filter((event) => !ids.has(event.event_id));
      this.#keep();
      await this.flush();
    }
  }

  /** Send what waits, then stop listening to the page. */
  async close(): Promise<void> {
    await this.flush();
    clearTimeout(this.#timer);
    removeEventListener("pagehide", this.#sendNow);
    document.removeEventListener("visibilitychange", this.#sendIfHidden);
  }

  readonly #sendNow = (): void => void this.flush();

  readonly #sendIfHidden = (): void => {
    if (document.visibilityState === "hidden") void this.flush();
  };

  /** Return whether a batch is done with: stored, or refused for good. */
  async #deliver(batch: IdentifiedEvent[]): Promise<boolean> {
    try {
      const answer = await this.#send(batch);
      for (const { index, code, field, detail } of answer.rejected) {
        const problem = { title: "", status: 422, code, detail, errors: [{ field, detail }] };
        this.#onLost([batch[index] as ShopEvent], new HandsellError("POST /v1/events", problem));
      }
      return true;
    } catch (error) {
      if (error instanceof HandsellError && (error.isTemporary || error.status === 401)) {
        this.#failures += 1;
        this.#notBefore = Date.now() + error.retryAfterMs;
        this.#schedule(Math.max(error.retryAfterMs, drawWait(this.#failures, FLUSH_AFTER_MS, LONGEST_WAIT_MS)));
        return false;
      }
      this.#onLost(batch, error as Error);
      return true;
    }
  }

  #schedule(waitMs: number): void {
    this.#timer ??= setTimeout(this.#sendNow, waitMs);
  }

  #keep(): void {
    try {
      sessionStorage.setItem(this.#storageKey, JSON.stringify(this.#waiting));
    } catch {
      // no storage: what waits is lost with the page
    }
  }

  #restore(): IdentifiedEvent[] {
    try {
      const kept: unknown = JSON.parse(sessionStorage.getItem(this.#storageKey) ?? "[]");
      return Array.isArray(kept) ? kept : [];
    } catch {
      return [];
    }
  }
}

/** Draw an id; crypto.randomUUID exists on pages with TLS alone. */
export function drawId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
