// Before anything is drawn: the theme that was chosen, else the system's.
{
  const order = ["auto", "light", "dark"];
  const said = { auto: "as the system", light: "light", dark: "dark" };
  const root = document.documentElement;
  let theme = "auto";
  try {
    const kept = localStorage.getItem("sdar-theme");
    if (order.includes(kept)) theme = kept;
  } catch {} // a browser that keeps nothing
  root.dataset.theme = theme;

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const tell = () => {
      button.setAttribute("aria-label", `Theme: ${said[theme]}`);
      button.title = `Theme: ${said[theme]}`;
    };
    button.addEventListener("click", () => {
      theme = order[(order.indexOf(theme) + 1) % order.length];
      root.dataset.theme = theme;
      tell();
      try {
        localStorage.setItem("sdar-theme", theme);
      } catch {}
    });
    tell();
  });
}
