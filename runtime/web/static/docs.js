// Shows the description of the REST interface with Swagger UI; its "Authorize" button takes the token.
SwaggerUIBundle({ url: "/openapi.json", dom_id: "#swagger", deepLinking: true, validatorUrl: null });
