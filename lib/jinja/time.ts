// strftime_now(format): the local time, with the names of the C locale.
import { asText } from "./functions.js";
import { fail, unsupported, type Value } from "./values.js";

const days = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const months = "January February March April May June July August September October November December".split(" ");

export function strftimeNow(format: Value, now = new Date()): string {
  const two = (value: number, fill = "0") => String(value).padStart(2, fill);
  const hour12 = now.getHours() % 12 || 12;
  const day = days[now.getDay()] as string;
  const month = months[now.getMonth()] as string;
  const year = now.getFullYear();
  const newYear = Date.UTC(year, 0, 1);
  const dayOfYear = (Date.UTC(year, now.getMonth(), now.getDate()) - newYear) / 86_400_000;
  const date = `${two(now.getMonth() + 1)}/${two(now.getDate())}/${two(year % 100)}`;
  const time = `${two(now.getHours())}:${two(now.getMinutes())}:${two(now.getSeconds())}`;
  const directives: Record<string, string> = {
    a: day.slice(0, 3),
    A: day,
    b: month.slice(0, 3),
    B: month,
    c: `${day.slice(0, 3)} ${month.slice(0, 3)} ${two(now.getDate(), " ")} ${time} ${year}`,
    d: two(now.getDate()),
    D: date,
    e: two(now.getDate(), " "),
    f: String(now.getMilliseconds() * 1000).padStart(6, "0"),
    F: `${year}-${two(now.getMonth() + 1)}-${two(now.getDate())}`,
    h: month.slice(0, 3),
    H: two(now.getHours()),
    I: two(hour12),
    j: String(dayOfYear + 1).padStart(3, "0"),
    k: two(now.getHours(), " "),
    l: two(hour12, " "),
    m: two(now.getMonth() + 1),
    M: two(now.getMinutes()),
    n: "\n",
    p: now.getHours() < 12 ? "AM" : "PM",
    R: time.slice(0, 5),
    S: two(now.getSeconds()),
    t: "\t",
    T: time,
    u: String(now.getDay() || 7),
    w: String(now.getDay()),
    x: date,
    X: time,
    y: two(year % 100),
    Y: String(year),
    z: "",
    Z: "",
    "-d": String(now.getDate()),
    "-m": String(now.getMonth() + 1),
    "-H": String(now.getHours()),
    "-I": String(hour12),
    "%": "%",
  };
  if (typeof format !== "string") return fail("strftime_now needs text");
  return asText(format).replace(
    /%(-?.?)/gs,
    (all, name: string) => directives[name] ?? unsupported(`strftime_now with ${all}`),
  );
}
