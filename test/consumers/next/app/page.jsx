export default function Page() {
  return <p>sdar-engine</p>;
}
