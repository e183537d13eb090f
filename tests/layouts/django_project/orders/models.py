from django.db import models


class Order(models.Model):
    customer = models.CharField(max_length=50)
    is_shipped = models.BooleanField(default=False)

    def __str__(self):
        return f"{self.customer}'s order"
