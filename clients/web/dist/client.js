// The client of a page: what a widget's token allows.
import { drawId, EventQueue } from "./events.js";
import { Transport } from "./transport.js";
export class HandsellClient {
    #transport;
    #events;
    #visitor;
    constructor(options) {
        const { userId, anonymousId } = options;
        this.#visitor = userId ? { user_id: userId } : anonymousId ? { anonymous_id: anonymousId } : {};
        this.#transport = new Transport(options);
        const key = `handsell ${options.service} ${JSON.stringify(this.#visitor)}`; // a user sends no other's events
        this.#events = new EventQueue((events) => this.#sendEvents(events), key, options.onLost ?? reportLoss);
    }
    /** Recommend items to the visitor on a surface. */
    async recommend(body = {}) {
        return this.#transport.send({ method: "POST", path: "/v1/recommendations", body: { ...this.#visitor, ...body } });
    }
    /** List items similar to one. */
    async similar(query) {
        return this.#transport.send({ method: "GET", path: "/v1/similar", query: { ...this.#visitor, ...query } });
    }
    /** List the most popular items. */
    async popular(query = {}) {
        return this.#transport.send({ method: "GET", path: "/v1/popular", query });
    }
    /** List items that are liked more this week than before. */
    async trending(query = {}) {
        return this.#transport.send({ method: "GET", path: "/v1/trending", query });
    }
    /** Queue an event of the visitor, and return its id; it is sent within a second, or when the page is left. */
    track(event) {
        const event_id = event.event_id ?? drawId();
        this.#events.add({ ...this.#visitor, ...event, event_id });
        return event_id;
    }
    /** Send the queued events now; resolves when the service has them, or has failed to take them. */
    async flush() {
        await this.#events.flush();
    }
    /** Send the queued events, and stop. */
    async close() {
        await this.#events.close();
    }
    async #sendEvents(events) {
        return this.#transport.sendOnce({ method: "POST", path: "/v1/events", body: { events } });
    }
}
function reportLoss(events, error) {
    console.error(`handsell: ${events.length} events are lost:`, error.message);
}
//# sourceMappingURL=client.js.map