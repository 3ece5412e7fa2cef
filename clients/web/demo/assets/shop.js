// Shows what the slates log, and logs what the buttons of an item do.

const log = document.getElementById("log");

function write(text) {
  const line = document.createElement("li");
  line.textContent = text;
  log.append(line);
}

for (const [name, what] of [["handsell-view", "viewed"], ["handsell-click", "clicked"]]) {
  document.addEventListener(name, ({ detail: { item } }) => {
    write(`${what} position ${item.rank}: ${item.metadata?.title ?? item.item_id}`);
  });
}

document.querySelector(".actions")?.addEventListener("click", ({ target, currentTarget }) => {
  const button = target.closest("button");
  if (!button) return;
  document.querySelector("handsell-slate").track(button.dataset.type, currentTarget.dataset.item);
  write(`${button.textContent}: ${currentTarget.dataset.title}`);
});
