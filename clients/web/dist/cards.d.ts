import type { RecommendedItem } from "./models.js";
export interface CardSettings {
    /** address of an item, with {item_id} for its id; without it a card is a button */
    href: string | null;
    /** column of the catalog that has the address of a picture */
    image: string | null;
    reasons: Record<string, string>;
}
export declare const REASONS: Record<string, string>;
export declare function createElement<Name extends keyof HTMLElementTagNameMap>(name: Name, classes: string, text?: string): HTMLElementTagNameMap[Name];
export declare function createCard(item: RecommendedItem, settings: CardSettings): HTMLElement;
export declare function readTitle(item: RecommendedItem): string;
