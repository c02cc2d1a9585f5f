// Swagger UI on our own description; its "Authorize" button takes the token.
SwaggerUIBundle({ url: "/openapi.json", dom_id: "#swagger", deepLinking: true, validatorUrl: null });
