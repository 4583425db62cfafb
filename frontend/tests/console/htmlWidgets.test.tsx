import { act, fireEvent, render, screen, waitFor } from "@testing-library/react";
import React from "react";
import { expect, test } from "vitest";

import { htmlWidgets } from "../../src/console/htmlWidgets";

test("a secret of several lines keeps its line breaks", async () => {
  const key = "-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----\n";
  const Page = () => {
    const [value, setValue] = React.useState("");
    const given = { id: "key", label: "Key", isSet: false, onReset: () => {}, multiline: true };
    return (
      <>
        <htmlWidgets.Secret {...given} value={value} onChange={setValue} />
        <output>{JSON.stringify(value)}</output>
      </>
    );
  };
  render(<Page />);
  fireEvent.change(screen.getByLabelText("Key"), { target: { value: key } });
  expect(JSON.parse(screen.getByRole("status").textContent!)).toBe(key);
});

test("suggestions are those of what was typed last, whichever answer is the last one", async () => {
  const answers: Record<string, (found: string[]) => void> = {};
  const load = (typed: string) =>
    new Promise<string[]>((resolve) => {
      answers[typed] = resolve;
    });
  const { container } = render(
    <htmlWidgets.Suggest id="site" label="Site" value="" onChange={() => {}} load={load} />,
  );
  const type = (text: string) => fireEvent.change(screen.getByLabelText("Site"), { target: { value: text } });
  type("b");
  type("be");
  answers.be!(["bern"]);
  const shown = () => [...container.querySelectorAll("option")].map((each) => each.value);
  await waitFor(() => expect(shown()).toEqual(["bern"]));
  await act(async () => answers.b!(["berlin", "bern"]));
  expect(shown()).toEqual(["bern"]);
});
