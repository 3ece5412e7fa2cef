import type { Event as ShopEvent, EventsAnswer } from "./models.js";
export type IdentifiedEvent = ShopEvent & {
    event_id: string;
};
export type OnLost = (events: ShopEvent[], error: Error) => void;
export type SendEvents = (events: ShopEvent[]) => Promise<EventsAnswer>;
export declare class EventQueue {
    #private;
    constructor(send: SendEvents, storageKey: string, onLost: OnLost);
    add(event: IdentifiedEvent): void;
    /** Send what waits; resolves when the service has it, or has failed to take it. */
    flush(): Promise<void>;
    /** Send what waits, then stop listening to the page. */
    close(): Promise<void>;
}
/** Draw an id; crypto.randomUUID exists on pages with TLS alone. */
export declare function drawId(): string;
