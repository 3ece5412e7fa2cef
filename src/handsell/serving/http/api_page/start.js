// Shows the OpenAPI document of this service. The key stays in the memory of this page.
const form = document.querySelector("form");
const message = document.querySelector("#message");
const dark = matchMedia("(prefers-color-scheme: dark)");
let key = "";

const setColors = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", setColors);
setColors();

function addKey(request) {
  if (key && !request.headers.Authorization && !request.headers["X-API-Key"]) {
    request.headers.Authorization = `Bearer ${key}`;
  }
  return request;
}

async function show() {
  const { headers } = addKey({ headers: {} });
  const answer = await fetch("openapi.json", { headers }).catch(() => null);
  form.hidden = answer?.status !== 401;
  if (!answer?.ok) {
    const problem = await answer?.json().catch(() => null);
    message.textContent = key || answer?.status !== 401 ? (problem?.detail ?? "The service does not answer: load the page again.") : "";
    return;
  }
  message.textContent = "";
  SwaggerUIBundle({
    spec: await answer.json(),
    dom_id: "#api",
    validatorUrl: null,
    defaultModelsExpandDepth: 0,
    displayRequestDuration: true,
    requestInterceptor: addKey,
  });
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  key = form.elements.key.value.trim();
  show();
});
show();
