// The client of a page: what a widget's token allows.

import { drawId, EventQueue, type OnLost } from "./events.js";
import type {
  Event as ShopEvent,
  EventsAnswer,
  ListAnswer,
  PopularParameters,
  RecommendationsAnswer,
  RecommendationsBody,
  SimilarParameters,
  TrendingParameters,
} from "./models.js";
import { Transport, type TransportOptions } from "./transport.js";

export interface ClientOptions extends TransportOptions {
  userId?: string | undefined;
  /** a visitor without an account; ignored beside a userId */
  anonymousId?: string | undefined;
  /** told of events that will not arrive; by default a line on the console */
  onLost?: OnLost | undefined;
}

export class HandsellClient {
  readonly #transport: Transport;
  readonly #events: EventQueue;
  readonly #visitor: { user_id?: string; anonymous_id?: string };

  constructor(options: ClientOptions) {
    const { userId, anonymousId } = options;
    this.#visitor = userId ? { user_id: userId } : anonymousId ? { anonymous_id: anonymousId } : {};
    this.#transport = new Transport(options);
    const key = `handsell ${options.service} ${JSON.stringify(this.#visitor)}`; // a user sends no other's events
    this.#events = new EventQueue((events) => this.#sendEvents(events), key, options.onLost ?? reportLoss);
  }

  /** Recommend items to the visitor on a surface. */
  async recommend(body: RecommendationsBody = {}): Promise<RecommendationsAnswer> {
    return this.#transport.send({ method: "POST", path: "/v1/recommendations", body: { ...this.#visitor, ...body } });
  }

  /** List items similar to one. */
  async similar(query: SimilarParameters): Promise<RecommendationsAnswer> {
    return this.#transport.send({ method: "GET", path: "/v1/similar", query: { ...this.#visitor, ...query } });
  }

  /** List the most popular items. */
  async popular(query: PopularParameters = {}): Promise<ListAnswer> {
    return this.#transport.send({ method: "GET", path: "/v1/popular", query });
  }

  /** List items that are liked more this week than before. */
  async trending(query: TrendingParameters = {}): Promise<ListAnswer> {
    return this.#transport.send({ method: "GET", path: "/v1/trending", query });
  }

  /** Queue an event of the visitor, and return its id; it is sent within a second, or when the page is left. */
  track(event: ShopEvent): string {
    const event_id = event.event_id ?? drawId();
    this.#events.add({ ...this.#visitor, ...event, event_id });
    return event_id;
  }

  /** Send the queued events now; resolves when the service has them, or has failed to take them. */
  async flush(): Promise<void> {
    await this.#events.flush();
  }

  /** Send the queued events, and stop. */
  async close(): Promise<void> {
    await this.#events.close();
  }

  async #sendEvents(events: ShopEvent[]): Promise<EventsAnswer> {
    return this.#transport.sendOnce({ method: "POST", path: "/v1/events", body: { events } });
  }
}

function reportLoss(events: ShopEvent[], error: Error): void {
  console.error(`handsell: ${events.length} events are lost:`, error.message);
}
