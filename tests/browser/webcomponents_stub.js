/* Stands in for the polyfill that torch-tb-profiler's Trace view loads from the internet: HTML imports and custom
   elements of version 0, which browsers had when the viewer was written. */
(() => {
  const definitions = new Map();
  const definition = element => definitions.get(element.getAttribute("is")) || definitions.get(element.localName);

  function upgrade(element) {
    const found = definition(element);
    if (!found || element.__upgraded__) return;
    element.__upgraded__ = true;
    Object.setPrototypeOf(element, found.prototype);
    element.createdCallback?.();
  }

  function connect(element) {
    if (!element.__upgraded__ || element.__attached || !element.isConnected) return;
    element.__attached = true;
    element.attachedCallback?.();
  }

  function disconnect(element) {
    if (!element.__attached || element.isConnected) return;
    element.__attached = false;
    element.detachedCallback?.();
  }

  function each(node, visit) {
    if (node.nodeType === Node.ELEMENT_NODE) visit(node);
    node.querySelectorAll?.("*").forEach(visit);
    return node;
  }

  const upgradeTree = node => each(node, upgrade);
  const settle = records => {
    for (const record of records) {
      record.removedNodes.forEach(node => each(node, disconnect));
      record.addedNodes.forEach(node => each(upgradeTree(node), connect));
    }
  };
  const observer = new MutationObserver(settle);
  const watch = root => observer.observe(root, { childList: true, subtree: true });

  document.registerElement = (name, { prototype = Object.create(HTMLElement.prototype), extends: tag } = {}) => {
    definitions.set(name, { prototype });
    upgradeTree(document);
    each(document, connect);
    const make = function () {
      return document.createElement(tag || name, tag ? name : undefined);
    };
    make.prototype = prototype;
    return make;
  };

  const create = Document.prototype.createElement;
  document.createElement = (tag, kind) => {
    const element = create.call(document, tag);
    if (typeof kind === "string") element.setAttribute("is", kind);
    upgrade(element);
    return element;
  };
  const importNode = Document.prototype.importNode;
  document.importNode = (node, deep) => upgradeTree(importNode.call(document, node, deep));
  const cloneNode = Node.prototype.cloneNode;
  Node.prototype.cloneNode = function (deep) {
    const copy = cloneNode.call(this, deep);
    return this.ownerDocument === document ? upgradeTree(copy) : copy;
  };
  for (const method of ["setAttribute", "removeAttribute"]) {
    const change = Element.prototype[method];
    Element.prototype[method] = function (name, value) {
      const before = this.getAttribute(name);
      change.call(this, name, value);
      if (this.__upgraded__) this.attributeChangedCallback?.(name, before, this.getAttribute(name));
    };
  }
  HTMLElement.prototype.createShadowRoot = function () {
    let root;
    try {
      root = this.attachShadow({ mode: "open" });
    } catch {
      // Elements that may have none today (buttons, tables) hold the same nodes as plain children.
      root = this.appendChild(create.call(document, "span"));
    }
    watch(root);
    return root;
  };
  Object.defineProperty(document, "_currentScript", { get: () => document.currentScript });
  window.CustomElements = { useNative: false, hasNative: false, upgrade: upgradeTree, upgradeAll: upgradeTree,
    upgradeSubtree: upgradeTree, takeRecords: () => settle(observer.takeRecords()), ready: true };
  window.WebComponents = {};
  window.wrap = window.unwrap = node => node;

  /* A parsed script never runs; a new one with the same text does. */
  function run(script) {
    const living = create.call(document, "script");
    living.textContent = script.textContent;
    script.replaceWith(living);
  }

  document.addEventListener("DOMContentLoaded", async () => {
    watch(document);
    for (const link of document.querySelectorAll("link[rel=import]")) {
      const text = await (await fetch(link.href)).text();
      const parsed = new DOMParser().parseFromString(text, "text/html");
      const held = create.call(document, "div");
      held.hidden = true;
      held.append(...parsed.head.childNodes, ...parsed.body.childNodes);
      document.body.append(held);
      held.querySelectorAll("script").forEach(run);
    }
    document.dispatchEvent(new CustomEvent("WebComponentsReady", { bubbles: true }));
  });
})();
