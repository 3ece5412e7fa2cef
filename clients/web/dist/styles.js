// Look of the slate; a page changes it by these custom properties and by ::part(…).
export const STYLES = `
:host {
  --_text: var(--handsell-text, #1b1d22);
  --_muted: var(--handsell-muted, #595f69);
  --_card: var(--handsell-card, #ffffff);
  --_border: var(--handsell-border, #d5d9e0);
  --_accent: var(--handsell-accent, #1a56c4);
  --_width: var(--handsell-card-width, 10rem);
  --_gap: var(--handsell-gap, 0.75rem);
  display: block;
  color: var(--_text);
}
@supports (color: light-dark(#fff, #000)) { /* follows the color-scheme of the page, not of the machine */
  :host {
    --_text: var(--handsell-text, light-dark(#1b1d22, #eceef2));
    --_muted: var(--handsell-muted, light-dark(#595f69, #aab1bd));
    --_card: var(--handsell-card, light-dark(#ffffff, #1e2127));
    --_border: var(--handsell-border, light-dark(#d5d9e0, #3b404a));
    --_accent: var(--handsell-accent, light-dark(#1a56c4, #8ab4ff));
  }
}
:host([hidden]) { display: none; }
h2 { margin: 0 0 0.75rem; font-size: 1.25rem; line-height: 1.3; }
ul {
  display: grid;
  grid-template-columns: repeat(auto-fill, minmax(min(var(--_width), 100%), 1fr));
  gap: var(--_gap);
  margin: 0;
  padding: 0;
  list-style: none;
}
li { display: flex; min-width: 0; }
.link {
  display: flex;
  flex: 1;
  flex-direction: column;
  min-width: 0;
  padding: 0;
  overflow: hidden;
  border: 1px solid var(--_border);
  border-radius: 0.5rem;
  background: var(--_card);
  color: inherit;
  font: inherit;
  text-align: start;
  text-decoration: none;
  cursor: pointer;
}
.link:hover { border-color: var(--_accent); }
.link:focus-visible, .retry:focus-visible { outline: 3px solid var(--_accent); outline-offset: 2px; }
.picture { display: grid; place-items: center; aspect-ratio: 4 / 3; width: 100%; object-fit: cover; }
.initial { background: hsl(var(--hue) 42% 38%); color: #ffffff; font-size: 2.25rem; font-weight: 600; }
.words { display: flex; flex-direction: column; gap: 0.25rem; padding: 0.625rem 0.75rem 0.75rem; overflow-wrap: anywhere; }
.title { font-weight: 600; line-height: 1.3; }
.creators, .reason { color: var(--_muted); font-size: 0.875rem; line-height: 1.35; }
.message { margin: 0 0 0.75rem; color: var(--_muted); }
.retry {
  padding: 0.5rem 0.875rem;
  border: 1px solid var(--_accent);
  border-radius: 0.5rem;
  background: transparent;
  color: var(--_accent);
  font: inherit;
  cursor: pointer;
}
.skeleton { height: 13rem; border-radius: 0.5rem; background: var(--_border); animation: pulse 1.4s ease-in-out infinite; }
h2[hidden] { display: none; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
@keyframes pulse { 50% { opacity: 0.45; } }
@media (prefers-reduced-motion: reduce) { .skeleton { animation: none; } }
`;
//# sourceMappingURL=styles.js.map