// Parts of the slate as DOM nodes. Text of the catalog is set as text, never as HTML.

import type { Reason, RecommendedItem } from "./models.js";

export interface CardSettings {
  /** address of an item, with {item_id} for its id; without it a card is a button */
  href: string | null;
  /** column of the catalog that has the address of a picture */
  image: string | null;
  reasons: Record<string, string>;
}

export const REASONS: Record<string, string> = {
  recommended_for_you: "Recommended for you",
  listen_again: "Once more",
  because_you_liked: "Because you liked something similar",
  "because_you_liked:title": "Because you liked {title}",
  similar_to_recent: "Similar to what you looked at",
  "similar_to_recent:title": "Similar to {title}",
  from_creator_you_play: "By someone you like",
  new_release: "New",
  matches_your_taste: "Matches your taste",
  popular: "Popular",
  explore: "Something different",
};

export function createElement<Name extends keyof HTMLElementTagNameMap>(
  name: Name,
  classes: string,
  text = "",
): HTMLElementTagNameMap[Name] {
  const element = document.createElement(name);
  if (classes) element.className = classes;
  const part = classes.split(" ").pop();
  if (part) element.setAttribute("part", part);
  if (text) element.textContent = text;
  return element;
}

export function createCard(item: RecommendedItem, settings: CardSettings): HTMLElement {
  const link = createElement(settings.href === null ? "button" : "a", "link");
  if (link instanceof HTMLAnchorElement) {
    link.href = (settings.href ?? "").replaceAll("{item_id}", encodeURIComponent(item.item_id));
  } else {
    link.type = "button";
  }
  link.append(createPicture(item, settings.image), createWords(item, settings.reasons));
  return link;
}

export function readTitle(item: RecommendedItem): string {
  const title = item.metadata?.["title"];
  return typeof title === "string" && title ? title : item.item_id;
}

function createPicture(item: RecommendedItem, image: string | null): HTMLElement {
  const address = image === null ? undefined : item.metadata?.[image];
  if (typeof address === "string" && address) {
    const picture = createElement("img", "picture");
    Object.assign(picture, { src: address, alt: "", loading: "lazy", decoding: "async" });
    picture.addEventListener("error", () => picture.replaceWith(createInitial(item)), { once: true });
    return picture;
  }
  return createInitial(item);
}

function createInitial(item: RecommendedItem): HTMLElement {
  const tile = createElement("span", "initial picture", Array.from(readTitle(item))[0]?.toUpperCase());
  const hash = Array.from(item.item_id).reduce((sum, letter) => (sum * 31 + (letter.codePointAt(0) ?? 0)) % 360, 0);
  tile.style.setProperty("--hue", String(hash));
  tile.setAttribute("aria-hidden", "true");
  return tile;
}

function createWords(item: RecommendedItem, reasons: Record<string, string>): HTMLElement {
  const words = createElement("span", "words");
  words.append(createElement("span", "title", readTitle(item)));
  const creators = item.metadata?.["creators"];
  if (Array.isArray(creators) && creators.length) words.append(createElement("span", "creators", creators.join(", ")));
  const reason = describeReason(item.reason, reasons);
  if (reason) words.append(createElement("span", "reason", reason));
  return words;
}

/** The text of a reason; one with a place for a title is used where the answer names one. */
function describeReason(reason: Reason, texts: Record<string, string>): string | undefined {
  const named = texts[`${reason.code}:title`];
  return named && reason.title ? named.replaceAll("{title}", () => reason.title ?? "") : texts[reason.code];
}
