// Your own site serves this, the policy that it trusts, and a key of its user's; the gateway serves neither.
import { connect } from "confide";
import { createRoot } from "react-dom/client";

import { Chat } from "./Chat.jsx";

const root = createRoot(document.getElementById("root"));
try {
  const config = await (await fetch("config.json")).json(); // baseURL, apiKey, policy; allowSimulated for a playground
  root.render(<Chat confide={await connect(config)} />);
} catch (fault) {
  root.render(<p role="alert">{fault.message}</p>); // refused, and by which check: no prompt was sent
}
