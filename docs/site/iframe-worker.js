// The search runs in a worker. Browsers refuse workers to a page that was opened as a file: there it runs in a hidden frame.
if (location.protocol === "file:")
  window.Worker = class extends EventTarget {
    constructor(address) {
      super()
      const frame = Object.assign(document.createElement("iframe"), {hidden: true, title: "search"})
      frame.begin = own => own.postMessage = data => this.dispatchEvent(new MessageEvent("message", {data}))
      frame.srcdoc = `<script>frameElement.begin(window)</script><script src="${address}"></script>`
      this.own = new Promise(ready => frame.onload = () => ready(frame.contentWindow))
      document.documentElement.append(frame)
    }

    postMessage(data) {
      this.own.then(own => own.dispatchEvent(new MessageEvent("message", {data})))
    }
  }
