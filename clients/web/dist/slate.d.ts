import { HandsellClient } from "./client.js";
import type { RecommendationsAnswer, RecommendedItem } from "./models.js";
import { type TokenSource } from "./tokens.js";
declare const ElementBase: {
    new (): HTMLElement;
    prototype: HTMLElement;
};
export declare class HandsellSlate extends ElementBase {
    #private;
    static readonly observedAttributes: string[];
    /** Texts of reasons by code; a reason without one is not shown. */
    reasons: Record<string, string> | undefined;
    /** Makes a card in place of the built-in one; its first link or button gets the focus of the keyboard. */
    renderItem: ((item: RecommendedItem) => HTMLElement) | undefined;
    /** Returns tokens, in place of the attributes token and token-url. */
    getToken: TokenSource | undefined;
    /** The slate that is shown; undefined while there is none. */
    get answer(): RecommendationsAnswer | undefined;
    /** The client of this slate, for events of the page itself. */
    get client(): HandsellClient;
    connectedCallback(): void;
    disconnectedCallback(): void;
    attributeChangedCallback(name: string, before: string | null, after: string | null): void;
    /** Ask for another slate. */
    reload(): Promise<void>;
    /** Log an event of an item, such as a purchase; one of the slate gets its position. */
    track(type: string, itemId: string, value?: number): string;
}
declare global {
    interface HTMLElementTagNameMap {
        "handsell-slate": HandsellSlate;
    }
}
export {};
